/* What matquant quantize prints. */
#ifndef MATQUANT_CLI_QUANTIZE_RESULT_H
#define MATQUANT_CLI_QUANTIZE_RESULT_H

#include "matquant/quantize.h"

void cli_print_quantize_table(const mq_quantize_report *report, const mq_quantize_options *options);
mq_status cli_print_quantize_json(const mq_quantize_report *report,
                                  const mq_quantize_options *options);

#endif
