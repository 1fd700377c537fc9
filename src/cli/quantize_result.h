/* What matquant quantize prints. */
#ifndef MATQUANT_CLI_QUANTIZE_RESULT_H
#define MATQUANT_CLI_QUANTIZE_RESULT_H

#include "matquant/quantize.h"

/* As options and the result call them, in the order of the enumerations; NULL ends each. */
extern const char *const cli_recipe_names[];
extern const char *const cli_loss_names[];

void cli_print_quantize_table(const mq_quantize_report *report, const mq_quantize_options *options);
mq_status cli_print_quantize_json(const mq_quantize_report *report,
                                  const mq_quantize_options *options);

#endif
