# Which TensorRT the plugin is for: TDC_TENSORRT_MAJOR, and TDC_TENSORRT_INCLUDE, its headers.
#
# Headers are looked for in TENSORRT_ROOT or TensorRT_ROOT (where a tar was unpacked), in CMAKE_PREFIX_PATH, and
# where the system's packages put them. Without them, or with those of another major, the plugin is
# compiled against abi/. The major is the headers' by default, and 10 where there are none.
set(TENSORRT_ROOT "" CACHE PATH "Where TensorRT is: the folder with include/NvInferRuntime.h")
set(TDC_TENSORRT_MAJOR "" CACHE STRING "TensorRT's major version: 8, 10 or 11")

if(NOT TENSORRT_ROOT AND TensorRT_ROOT) # as find_package spells it
    set(TENSORRT_ROOT ${TensorRT_ROOT})
endif()

unset(headers CACHE)
set(suffixes include include/${CMAKE_SYSTEM_PROCESSOR}-linux-gnu)
if(TENSORRT_ROOT)
    find_path(headers NvInferRuntime.h PATHS ${TENSORRT_ROOT} PATH_SUFFIXES ${suffixes}
              NO_DEFAULT_PATH NO_CACHE)
    if(NOT headers)
        message(FATAL_ERROR "TENSORRT_ROOT: received ${TENSORRT_ROOT}, expected a folder with "
                            "include/NvInferRuntime.h")
    endif()
else()
    find_path(headers NvInferRuntime.h PATH_SUFFIXES ${CMAKE_SYSTEM_PROCESSOR}-linux-gnu NO_CACHE)
endif()

set(found "")
if(headers)
    file(STRINGS ${headers}/NvInferVersion.h lines
         REGEX "define (NV_TENSORRT_MAJOR|TRT_MAJOR_ENTERPRISE) +[0-9]+")
    string(REGEX MATCH "[0-9]+" found "${lines}")
endif()
set(major "${TDC_TENSORRT_MAJOR}")
if(NOT major)
    set(major 10)
    if(found)
        set(major ${found})
    endif()
endif()
if(NOT major MATCHES "^(8|10|11)$")
    message(FATAL_ERROR "TDC_TENSORRT_MAJOR: received ${major}, expected 8, 10 or 11")
endif()

if(found STREQUAL major)
    set(TDC_TENSORRT_INCLUDE ${headers})
elseif(TENSORRT_ROOT)
    message(FATAL_ERROR "TDC_TENSORRT_MAJOR is ${major}, but TENSORRT_ROOT has TensorRT ${found}")
else()
    set(TDC_TENSORRT_INCLUDE ${CMAKE_CURRENT_LIST_DIR}/abi)
endif()
message(STATUS "TensorRT ${major}, headers in ${TDC_TENSORRT_INCLUDE}")
set(TDC_TENSORRT_MAJOR ${major})
