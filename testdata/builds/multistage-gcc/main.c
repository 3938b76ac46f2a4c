#include <stdio.h>

int main(void) {
    puts("built with key " KEY);
    return 0;
}
