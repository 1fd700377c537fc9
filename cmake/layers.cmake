# The dependency law, in one place: what the files of each layer may include, and what a test of it links.
#
#     base <- tensor <- {text, model} <- quant <- store <- {job, eval, export} <- cli

set(MQ_LIBRARY_LAYERS base tensor text model quant store job eval export)

set(MQ_BELOW_base)
set(MQ_BELOW_tensor base)
set(MQ_BELOW_text base tensor)
set(MQ_BELOW_model base tensor)
set(MQ_BELOW_quant base tensor text model)
set(MQ_BELOW_store base tensor text model quant)
set(MQ_BELOW_job base tensor text model quant store)
set(MQ_BELOW_eval base tensor text model quant store)
set(MQ_BELOW_export base tensor text model quant store)
