# The version is the header's. Before 1.0 a new minor version may change what there is.

file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/../../../include/qnet.h" _qnet_lines
  REGEX "^#define QNET_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
string(REGEX MATCHALL "[0-9]+" _qnet_numbers "${_qnet_lines}")
list(JOIN _qnet_numbers "." PACKAGE_VERSION)
list(GET _qnet_numbers 0 _qnet_major)
list(GET _qnet_numbers 1 _qnet_minor)

if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
elseif(PACKAGE_FIND_VERSION_MAJOR EQUAL _qnet_major AND
       (_qnet_major GREATER 0 OR PACKAGE_FIND_VERSION_MINOR EQUAL _qnet_minor))
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
else()
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
endif()

if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_EXACT TRUE)
endif()
