#pragma once
#include "frame.h"

/* Serves plans at this socket until told to quit. */
int spawner_main(const char *socket_path);

/* Before the fork: the shim's directory, and its socket in there. NULL, or what failed, with the errno in *error. */
struct shim_door { int dir, listener; };
const char *shim_open_door(struct arg options, struct shim_door *door, int *error);
void shim_close_door(struct shim_door *door, bool remove);

/* The life of one container, in the process that the spawner forked for it. Writes result records to `answer` once the container
 * is created, and closes it. Never returns. `memory` holds the request and is given back when the plan is done with. */
struct request_memory { void *at; size_t size; };
int reaper_main(char **argv);
void shim_main(struct request *request, struct shim_door door, struct request_memory memory, int answer) __attribute__((noreturn));
