#pragma once
#include "frame.h"

/* Serves plans at this socket until told to quit. */
int spawner_main(const char *socket_path);

/* The life of one container, in the process that the spawner forked for it. Writes result records to `answer` once the container
 * is created, and closes it. Never returns. `memory` holds the request and is given back when the plan is done with. */
struct request_memory { void *at; size_t size; };
void shim_main(struct request *request, struct request_memory memory, int answer) __attribute__((noreturn));
