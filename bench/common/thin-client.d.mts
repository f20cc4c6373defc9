export class ThinClient {
  constructor(path: string);
  ask(
    method: string,
    target: string,
    body?: Buffer,
    type?: string,
  ): Promise<{ status: number; size: number; text: string }>;
  close(): void;
}
