/* api_list.h - every API that this front end serves, by rising key: X(NAME) stands for `const struct api_handler
 * api_NAME`. */
#ifndef KARST_FRONTEND_API_LIST_H
#define KARST_FRONTEND_API_LIST_H

#define FRONTEND_APIS(X)                                                                                               \
    X(produce)                                                                                                         \
    X(fetch)                                                                                                           \
    X(metadata)                                                                                                        \
    X(api_versions)

#endif
