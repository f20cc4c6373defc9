#pragma once
/* Beyond what a program can end with, since containers end with every other number. */
enum { NOT_SERVED = 256 };
/* One command of estiba-oci through the planner at `socket`; `home` is the installation that must be its own. The exit code, or
 * NOT_SERVED when nothing has happened yet. */
int front_main(const char *socket, const char *home, char **argv);
/* The same with a planner made for this call: `node script --fd 3`, or of its snapshot. */
int front_alone(const char *node, const char *script, const char *home, char **argv);
