# The plugin with the kernels for the GPU, and CUDA's runtime inside.
find_package(CUDAToolkit REQUIRED)
file(GLOB kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/plugins/kernels/*.cu
     ${CMAKE_SOURCE_DIR}/plugins/kernels/*.cpp)
tdc_add_plugin(tdc_plugins ${TDC_TENSORRT_MAJOR})
target_sources(tdc_plugins PRIVATE ${kernels})
tdc_add_api(tdc_plugins timing)
target_include_directories(tdc_plugins SYSTEM PRIVATE ${TDC_TENSORRT_INCLUDE}
                                                      ${CUDAToolkit_INCLUDE_DIRS})
target_link_libraries(tdc_plugins PRIVATE CUDA::cudart_static)
target_compile_options(tdc_plugins PRIVATE
                       "$<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=--warn-on-spills;-Werror=all-warnings>")
# Only ON makes it part of `all`: it takes minutes, and the tests do without.
if(NOT TDC_PLUGINS STREQUAL "ON")
    set_target_properties(tdc_plugins PROPERTIES EXCLUDE_FROM_ALL ON)
endif()

# Machine code for each architecture, and PTX of the newest for those to come.
set(architectures ${TDC_ARCHITECTURES})
list(FILTER architectures INCLUDE REGEX "^[0-9]+$")
list(SORT architectures COMPARE NATURAL)
if(architectures)
    list(POP_BACK architectures newest)
    list(TRANSFORM architectures APPEND "-real")
    list(APPEND architectures ${newest})
else()
    set(architectures ${TDC_ARCHITECTURES})
endif()
set_target_properties(tdc_plugins PROPERTIES CUDA_ARCHITECTURES "${architectures}"
                      CUDA_STANDARD 17 CUDA_VISIBILITY_PRESET hidden)
