#pragma once
#include "run.h"
int spawner_main(const char *socket_path);
