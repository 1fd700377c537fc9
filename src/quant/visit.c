#include "quant/visit.h"

#include "quant/recipe.h"

/* The width that a step learns with options->sampled: one by the odds of all their weights. The
 * mean over steps of its gradient, times the sum of the weights by its own, is that of the whole
 * loss. */
static size_t draw_width(double *factor, const mq_grid_options *options, mq_random *random) {
    double sum = 0.0;
    for (size_t k = 0; k < options->width_count; k++) {
        sum += options->lambda[k];
    }
    double left = mq_random_unit(random) * sum;
    size_t drawn = 0;
    for (size_t k = 0; k < options->width_count; k++) {
        if (options->lambda[k] > 0.0) {
            drawn = k; /* the last of them, should rounding leave something over */
            if (left < options->lambda[k]) {
                break;
            }
            left -= options->lambda[k];
        }
    }
    *factor = sum / options->lambda[drawn];
    return drawn;
}

/* Whether a step visits trained width k, and how much more its loss weighs for the steps that pass
 * it over. Those that are visited more rarely are so beside the others (in the place of int2's
 * step, int8's made int2's KL end 4 to 7 % higher: the trial is in tests/bench/RESULTS.md). */
static bool visits(double *factor, const mq_learner *learner, size_t k, size_t step) {
    const size_t period = mq_recipe_period(learner->options, k);
    *factor = (double)period;
    return learner->grid_options.lambda[k] > 0.0 && step % period == period - 1;
}

void mq_visit_widths(bool visited[MQ_MAX_WIDTHS], double factor[MQ_MAX_WIDTHS],
                     const mq_learner *learner, mq_random *draws, size_t step) {
    const mq_grid_options *options = &learner->grid_options;
    double of_drawn = 0.0;
    const size_t drawn = learner->options->sampled ? draw_width(&of_drawn, options, draws) : 0;
    for (size_t k = 0; k < options->width_count; k++) {
        if (learner->options->sampled) {
            visited[k] = k == drawn;
            factor[k] = of_drawn;
        } else {
            visited[k] = visits(&factor[k], learner, k, step);
        }
    }
}

bool mq_visit_guides(const mq_learner *learner, size_t k, const bool visited[MQ_MAX_WIDTHS]) {
    const mq_quantize_options *options = learner->options;
    bool found = false;
    for (size_t i = 0; i < options->codistill_count; i++) {
        for (size_t student = k + 1; student < options->width_count; student++) {
            found =
                found || (visited[student] && options->codistill[i].teacher == options->widths[k] &&
                          options->codistill[i].student == options->widths[student]);
        }
    }
    return found;
}

void mq_visit_next(bool wanted[MQ_MAX_WIDTHS], const mq_learner *learner, size_t step,
                   size_t steps) {
    mq_random draws = learner->draws;
    bool next[MQ_MAX_WIDTHS] = {false};
    double factor[MQ_MAX_WIDTHS];
    mq_visit_widths(next, factor, learner, &draws, step + 1);
    for (size_t k = 0; k < MQ_MAX_WIDTHS; k++) {
        wanted[k] = step + 1 == steps || next[k] || mq_visit_guides(learner, k, next);
    }
}
