/* layer: cli */
/* Tables: columns line up whatever the names in them are written in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "table.h"

static void columns_line_up(void **state) {
    (void)state;
    static const char *const names[] = {"task", "größe",
                                        "leaderboard_bbh_tracking_shuffled_objects_five_objects"};
    static cli_table table;
    for (size_t i = 0; i < 3; i++) {
        cli_table_row(&table);
        cli_table_cell(&table, "%s", names[i]);
        cli_table_cell(&table, "%zu", i);
    }
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    cli_table_print(out, &table);
    fclose(out);
    char expected[512];
    snprintf(expected, sizeof expected, "%-54s  0\n%-56s  1\n%s  2\n", names[0], names[1],
             names[2]);
    assert_string_equal(text, expected); /* two characters of the second are of two bytes */
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_line_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
