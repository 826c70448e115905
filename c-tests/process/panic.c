/*
 * panic.c - a panic in each exported function, the names of which are this
 * program's arguments. For a library that was built with the feature
 * inject-panic: with QNET_INJECT_PANIC=1 in the environment every export
 * panics inside its boundary and says so on standard error. One that was made
 * without the boundary does not panic, or takes the process with it.
 */
#include <dlfcn.h>

#include "traffic.h"

/* Every export can be called like this: none has more arguments, and all of them are zero. */
typedef int int_function(long, long, long, long, long, long);
typedef const char *text_function(long, long, long, long, long, long);

static const char *const texts[] = { "qnet_version", "qnet_strerror", "qnet_last_error" };

/* These functions report no failure: any number will do. */
static const char *const numbers[] = { "qnet_abi_version", "qnet_last_errno" };

static const char *function_name;

static void *find(void)
{
    void *symbol = dlsym(RTLD_DEFAULT, function_name);

    CHECK(symbol != NULL);
    return symbol;
}

static int call_int(void)
{
    void *symbol = find();
    int_function *function;

    memcpy(&function, &symbol, sizeof function);
    return function(0, 0, 0, 0, 0, 0);
}

static const char *call_text(void)
{
    void *symbol = find();
    text_function *function;

    memcpy(&function, &symbol, sizeof function);
    return function(0, 0, 0, 0, 0, 0);
}

static int is_among(const char *const *names, size_t count)
{
    while (count > 0)
        if (strcmp(names[--count], function_name) == 0)
            return 1;
    return 0;
}

static int is_text(void)
{
    return is_among(texts, sizeof texts / sizeof *texts);
}

static int is_number(void)
{
    return is_among(numbers, sizeof numbers / sizeof *numbers);
}

/* Calls the function with standard error kept in `file`. */
static void call_noted(FILE *file)
{
    int saved = dup(STDERR_FILENO), code = 0;
    const char *text = "";

    CHECK(dup2(fileno(file), STDERR_FILENO) == STDERR_FILENO);
    if (is_text())
        text = call_text();
    else
        code = call_int();
    CHECK(dup2(saved, STDERR_FILENO) == STDERR_FILENO);
    close(saved);
    CHECK(text != NULL);
    if (!is_text() && !is_number())
        CHECK_INT(code, QNET_ERR_INTERNAL);
}

static void check_panics(void)
{
    char said[2000];
    FILE *file = tmpfile();
    size_t len;

    CHECK(file != NULL);
    CHECK(setenv("QNET_INJECT_PANIC", "1", 1) == 0);
    call_noted(file);
    CHECK(unsetenv("QNET_INJECT_PANIC") == 0);
    rewind(file);
    len = fread(said, 1, sizeof said - 1, file);
    said[len] = '\0';
    CHECK(strstr(said, "QNET_INJECT_PANIC") != NULL);
    fclose(file);
}

static void panic_in_function(void)
{
    int fd, i;
    qnet_conn *conn = raw_pair(&fd);

    for (i = 0; i < 2; i++) {
        check_panics();

        /* The process goes on, and so does the library. */
        if (is_text())
            CHECK(call_text() != NULL);
        else
            CHECK(call_int() != QNET_ERR_INTERNAL);
        check_traffic(conn, fd);
    }
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(raw_ended(fd));
}

/* A live handle is as it was after a panic in a call with it. */
static void panic_with_live_handle(void)
{
    unsigned char frame[60] = { 0 };
    int fd;
    qnet_conn *conn = raw_pair(&fd);

    CHECK(setenv("QNET_INJECT_PANIC", "1", 1) == 0);
    CHECK_INT(qnet_send(conn, frame, sizeof frame), QNET_ERR_INTERNAL);
    CHECK_INT(qnet_recv(conn, frame, sizeof frame, 0), QNET_ERR_INTERNAL);
    CHECK_INT(qnet_close(conn), QNET_ERR_INTERNAL);
    CHECK(unsetenv("QNET_INJECT_PANIC") == 0);
    check_traffic(conn, fd);
    CHECK_INT(qnet_close(conn), QNET_OK);
}

int main(int argc, char **argv)
{
    int i;

    if (argc < 2) {
        fprintf(stderr, "usage: %s qnet_function...\n", argv[0]);
        return 2;
    }
    for (i = 1; i < argc; i++) {
        function_name = argv[i];
        run(function_name, panic_in_function);
    }
    RUN(panic_with_live_handle);
    return check_done();
}
