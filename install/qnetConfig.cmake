# find_package(qnet) gives the target qnet::qnet, the shared library, and qnet::static.
#
# Everything is found from where this file lies, in PREFIX/share/cmake/qnet, so that the tree may be
# moved.

get_filename_component(_qnet_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(_qnet_suffixes lib lib64 "lib/${CMAKE_LIBRARY_ARCHITECTURE}")

foreach(_qnet_name libqnet.so libqnet.a)
  find_library(_qnet_${_qnet_name} ${_qnet_name}
    PATHS "${_qnet_prefix}" PATH_SUFFIXES ${_qnet_suffixes} NO_DEFAULT_PATH)
  mark_as_advanced(_qnet_${_qnet_name})
endforeach()

if(NOT TARGET qnet::qnet AND _qnet_libqnet.so)
  add_library(qnet::qnet SHARED IMPORTED)
  set_target_properties(qnet::qnet PROPERTIES
    IMPORTED_LOCATION "${_qnet_libqnet.so}"
    INTERFACE_INCLUDE_DIRECTORIES "${_qnet_prefix}/include")
endif()

if(NOT TARGET qnet::static AND _qnet_libqnet.a)
  set(THREADS_PREFER_PTHREAD_FLAG ON)
  find_package(Threads REQUIRED)
  add_library(qnet::static STATIC IMPORTED)
  set_target_properties(qnet::static PROPERTIES
    IMPORTED_LOCATION "${_qnet_libqnet.a}"
    INTERFACE_INCLUDE_DIRECTORIES "${_qnet_prefix}/include"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
endif()

if(NOT TARGET qnet::qnet)
  set(qnet_FOUND FALSE)
  set(qnet_NOT_FOUND_MESSAGE "libqnet.so is not below ${_qnet_prefix}")
endif()
