#include "mixture.h"

#include <math.h>

#include "table.h"

void cli_print_widths(const mq_width_counts *widths, unsigned width, bool asked) {
    char text[CLI_CELL_SIZE];
    const size_t own = widths->layers[width] > 0;
    if (asked || mq_width_counts_size(widths) > own) {
        cli_print_field(stdout, "widths", "%s; %.3f bits on average",
                        mq_width_counts_text(text, sizeof text, widths), mq_mean_bits(widths));
    }
}

void cli_json_widths(cli_json *json, cJSON *object, const mq_width_counts *widths) {
    const bool any = mq_width_counts_size(widths) > 0;
    cli_json_number(json, object, "mean_bits", any ? mq_mean_bits(widths) : NAN);
    cJSON *list = cli_json_array(json, object, "widths");
    for (unsigned width = MQ_MAX_WIDTH; width > 0; width--) {
        if (widths->layers[width] > 0) {
            cJSON *entry = cli_json_element(json, list);
            cli_json_size(json, entry, "bits", width);
            cli_json_size(json, entry, "layers", widths->layers[width]);
        }
    }
}
