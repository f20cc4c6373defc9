/** What `tools/gen-docker.mjs` takes from the API's Swagger files. */
export interface ApiFacts {
  routes: ApiRoute[];
  /** By operation id. */
  bodies: Record<string, FieldSchema>;
  definitions: Record<string, FieldSchema>;
}

export interface ApiRoute {
  method: string;
  /** `/containers/{id}/json`. */
  path: string;
  id: string;
  query: Record<string, string>;
  /** Names that `filters` may have. */
  filters?: string[];
}

/** `s` string, `i` integer, `n` number, `b` boolean, `any`, `@Name`; `[item]` a list; `{'*': value}` a map; else fields. */
export type FieldSchema = string | FieldSchema[] | { [field: string]: FieldSchema };
