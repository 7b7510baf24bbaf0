# TDC_KERNEL_REVISION: a digest of the kernels' source. TensorRT's timing cache must not keep times
# of kernels that have changed.
file(GLOB kernel_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/plugins/kernels/*
     ${CMAKE_SOURCE_DIR}/plugins/include/tdc/*)
set(digests "")
foreach(source ${kernel_sources})
    file(SHA256 ${source} digest)
    string(APPEND digests ${digest})
endforeach()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${kernel_sources})
string(SHA256 digest "${digests}")
string(SUBSTRING ${digest} 0 16 TDC_KERNEL_REVISION)
