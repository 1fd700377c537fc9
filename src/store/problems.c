#include "store/problems.h"

mq_status mq_problem(mq_problems *problems, const mq_error *problem, mq_error *err) {
    if (problems == NULL || problem->status != MQ_ERR_INPUT) {
        if (err != NULL) {
            *err = *problem;
        }
        return problem->status;
    }
    if (problems->count == 0) {
        problems->first = *problem;
    }
    problems->count++;
    char line[sizeof *problem];
    mq_error_format(line, sizeof line, problem);
    mq_log(problems->context, MQ_LOG_WARNING, "%s", line);
    return MQ_OK;
}
