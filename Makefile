# make             the libraries, target/install/libqnet.so and libqnet.a
# make check       the tests, in a few minutes (see c-tests/Makefile for more of them, or fewer)
# make man         the manual pages, target/man; `make` makes them too, where there is a Python 3
# make install     all of them, the header, and what pkg-config and CMake find the libraries by
# make uninstall
# make dist        target/libqnet-VERSION.tar.xz: the files that git knows, and the crates, so that it
#                  builds without a network
#
# PREFIX, LIBDIR, INCLUDEDIR and MANDIR say where to; DESTDIR is put before them, for packages. `make install`
# installs what was built before and builds nothing anew, so that another user may run it.

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
CMAKEDIR    = $(PREFIX)/share/cmake/qnet
CARGO      ?= cargo
RUSTC      ?= rustc

field       = $(shell sed -n 's/^$(1) = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
VERSION    := $(call field,version)
SONAME     := libqnet.so.$(firstword $(subst ., ,$(VERSION)))
TARGET     := $(abspath $(or $(CARGO_TARGET_DIR),target))
BUILT      := $(TARGET)/release

# The static library as it is installed: one object that exports only qnet_*, so that it may be linked
# beside other static libraries made of Rust, whose standard library has the same names.
STATIC     := $(TARGET)/install/libqnet.a
# The libraries that a program needs beside the static library, as rustc lists them. -lgcc_s is left out
# of them, as there is only a shared one: compilers add it by themselves, or libgcc_eh.a under -static.
PRIVATE    := $(TARGET)/install/native-static-libs
MAN        := $(TARGET)/man
DIST       := $(TARGET)/dist/libqnet-$(VERSION)

# The shared library as it is installed: that object, linked by whichever linker LDFLAGS or CC choose. rustc
# gives versions to symbols only by lld.
SHARED     := $(TARGET)/install/libqnet.so

.PHONY: all check shared man install uninstall dist clean

all:
	$(CARGO) build --release --locked --target-dir $(TARGET)
	mkdir -p $(dir $(STATIC))
	: >$(PRIVATE).rs
	$(RUSTC) --crate-type staticlib --print native-static-libs=$(PRIVATE) -o $(PRIVATE).a $(PRIVATE).rs
	$(LD) -r --gc-sections --force-group-allocation -o $(STATIC:.a=.o) $(BUILT)/libqnet.a \
	$$(sed 's/@.*//; s/^/-u /' abi/symbols)
	objcopy -w --keep-global-symbol='qnet_*' --strip-debug -R .llvmbc -R .llvmcmd $(STATIC:.a=.o)
	rm -f $(STATIC)
	$(AR) rcs $(STATIC) $(STATIC:.a=.o)
	$(MAKE) shared
	! command -v python3 >/dev/null || $(MAKE) man

shared:
	abi/version-script >$(SHARED).map
	$(CC) -shared $(LDFLAGS) -o $(SHARED) $(STATIC:.a=.o) -Wl,-soname,$(SONAME) -Wl,-z,nodelete \
	-Wl,--version-script,$(SHARED).map -Wl,-z,relro,-z,now -Wl,--gc-sections,-O1 -Wl,--no-undefined \
	-Wl,--as-needed $$(cat $(PRIVATE))
	ln -sf $(notdir $(SHARED)) $(dir $(SHARED))$(SONAME)

man:
	rm -rf $(MAN)
	python3 packaging/man.py $(MAN)

check:
	$(MAKE) -C c-tests check

$(SHARED):
	$(MAKE) all

install: $(SHARED)
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(CMAKEDIR)
	install -m 755 $(SHARED) $(DESTDIR)$(LIBDIR)/libqnet.so.$(VERSION)
	ln -sf libqnet.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libqnet.so
	install -m 644 $(STATIC) $(DESTDIR)$(LIBDIR)
	install -m 644 include/qnet.h include/qnet.hpp $(DESTDIR)$(INCLUDEDIR)
	install -m 644 install/qnetConfig.cmake install/qnetConfigVersion.cmake $(DESTDIR)$(CMAKEDIR)
	sed -e 's|@prefix@|$(PREFIX)|' -e 's|@libdir@|$(LIBDIR)|' -e 's|@includedir@|$(INCLUDEDIR)|' \
	-e 's|@version@|$(VERSION)|' -e "s|@description@|$(call field,description)|" \
	-e "s|@private@|$$(sed 's/-lgcc_s *//' $(PRIVATE))|" install/qnet.pc.in >$(DESTDIR)$(LIBDIR)/pkgconfig/qnet.pc
	[ ! -d $(MAN) ] || { install -d $(DESTDIR)$(MANDIR)/man3 $(DESTDIR)$(MANDIR)/man7 && \
	install -m 644 $(MAN)/man3/* $(DESTDIR)$(MANDIR)/man3 && \
	install -m 644 $(MAN)/man7/* $(DESTDIR)$(MANDIR)/man7; }

uninstall:
	rm -f $(DESTDIR)$(LIBDIR)/libqnet.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME) \
	$(DESTDIR)$(LIBDIR)/libqnet.so $(DESTDIR)$(LIBDIR)/libqnet.a \
	$(DESTDIR)$(INCLUDEDIR)/qnet.h $(DESTDIR)$(INCLUDEDIR)/qnet.hpp \
	$(DESTDIR)$(LIBDIR)/pkgconfig/qnet.pc \
	$(DESTDIR)$(MANDIR)/man3/qnet_*.3 $(DESTDIR)$(MANDIR)/man7/qnet.7
	rm -rf $(DESTDIR)$(CMAKEDIR)

# The same commit and crates give the same bytes.
dist:
	rm -rf $(DIST)
	mkdir -p $(DIST)/.cargo
	git ls-files -z >$(DIST).files
	tar -c --null -T $(DIST).files | tar -x -C $(DIST)
	cd $(DIST) && $(CARGO) vendor --locked vendor >.cargo/config.toml
	tar -C $(dir $(DIST)) -cJ --sort=name --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
	--mtime=@$$(git log -1 --format=%ct) -f $(TARGET)/$(notdir $(DIST)).tar.xz $(notdir $(DIST))

clean:
	$(CARGO) clean --target-dir $(TARGET)
