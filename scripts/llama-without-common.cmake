# Included by CMake behind llama-cpp-python's project(): llama.cpp without the library that its own programs share. The package
# sets the cache's variable; an ordinary one counts before it.
set(LLAMA_BUILD_COMMON OFF)
