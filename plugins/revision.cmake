# TDC_KERNEL_REVISION: a digest of the kernels' source. TensorRT's timing cache must not keep times
# of kernels that have changed.
file(GLOB revised CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/kernels/*
     ${CMAKE_CURRENT_LIST_DIR}/include/tdc/*)
list(REMOVE_ITEM revised ${CMAKE_CURRENT_LIST_DIR}/include/tdc/c_api.h)
set(digests "")
foreach(source ${revised})
    file(SHA256 ${source} digest)
    string(APPEND digests ${digest})
endforeach()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${revised})
string(SHA256 digest "${digests}")
string(SUBSTRING ${digest} 0 16 TDC_KERNEL_REVISION)
