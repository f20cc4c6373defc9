#include <stdio.h>
int main(void) { puts("built here"); return 0; }
