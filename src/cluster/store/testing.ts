/** Stores for the tests of the layers above, which know no driver. */
export { memoryStore } from '#storage/memory.ts';
