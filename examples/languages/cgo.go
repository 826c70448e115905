// cgo.go NETWORK ADDRESS [--leave] - from Go with cgo: asks who has 10.0.2.1, and receives the answer
// by pulling, then with a handler. With --leave it sends back what comes, and exits in the middle of it
// without closing anything.
package main

/*
#cgo pkg-config: qnet
#include <qnet.h>

extern void onFrame(uintptr_t, uint8_t *, size_t);

// Go's handle for the device is an integer, which would confuse the garbage collector as a pointer.
static inline void on_frame(void *user, const uint8_t *frame, size_t len)
{
    onFrame((uintptr_t)user, (uint8_t *)frame, len);
}

static inline int set_handler(qnet_conn *conn, uintptr_t user)
{
    return qnet_set_handler(conn, on_frame, (void *)user);
}
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/cgo"
	"strings"
	"unsafe"
)

// device is what the handler works for.
type device struct {
	conn  *C.qnet_conn
	leave bool
	count int
	done  chan struct{}
}

// call makes one call to the library, on one thread, because the text of a failure belongs to the
// thread. It repeats a wait that ends because of a signal that Go handles. (Not for time-outs, which
// leave no text.)
func call(f func() C.int) int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		code := f()
		if code == C.QNET_ERR_INTERRUPTED {
			continue
		}
		if code < 0 {
			fail(errors.New(C.GoString(C.qnet_last_error())))
		}
		return int(code)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func (d *device) send(frame []byte) {
	call(func() C.int { return C.qnet_send(d.conn, unsafe.Pointer(&frame[0]), C.size_t(len(frame))) })
}

// onFrame runs on a thread of the library. The frame is lent for the call.
//
//export onFrame
func onFrame(user C.uintptr_t, data *C.uint8_t, length C.size_t) {
	d := cgo.Handle(user).Value().(*device)
	frame := unsafe.Slice((*byte)(data), int(length))
	if d.leave {
		d.send(frame)
	} else {
		show("handled:", frame)
	}
	d.count++
	if !d.leave || d.count == 100 {
		close(d.done)
	}
}

func arpRequest(mac []byte) []byte {
	return bytes.Join([][]byte{bytes.Repeat([]byte{0xff}, 6), mac, {8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, mac,
		{10, 0, 2, 15}, make([]byte, 6), {10, 0, 2, 1}}, nil)
}

func show(how string, frame []byte) {
	if len(frame) >= 42 && frame[12] == 8 && frame[13] == 6 && frame[21] == 2 {
		mac := strings.ReplaceAll(fmt.Sprintf("% x", frame[22:28]), " ", ":")
		fmt.Println(how, "10.0.2.1 is at", mac)
	}
}

func main() {
	if len(os.Args) < 3 {
		fail(errors.New("usage: cgo NETWORK ADDRESS [--leave]"))
	}
	d := &device{leave: len(os.Args) > 3, done: make(chan struct{})}
	network, address := C.CString(os.Args[1]), C.CString(os.Args[2])
	mac, buf := make([]byte, 6), make([]byte, C.QNET_FRAME_MAX)

	call(func() C.int { return C.qnet_dial(network, address, &d.conn) })
	call(func() C.int { return C.qnet_hwaddr(d.conn, (*C.uint8_t)(&mac[0])) })
	if !d.leave {
		d.send(arpRequest(mac))
		length := call(func() C.int {
			return C.qnet_recv(d.conn, unsafe.Pointer(&buf[0]), C.size_t(len(buf)), -1)
		})
		show("pulled:", buf[:length])
	}
	user := cgo.NewHandle(d)
	call(func() C.int { return C.set_handler(d.conn, C.uintptr_t(user)) })
	if !d.leave {
		d.send(arpRequest(mac))
	}
	<-d.done
	if d.leave {
		fmt.Println("leaving")
		return
	}
	// Waits for the handler, which uses its user no longer after that.
	call(func() C.int { return C.qnet_close(d.conn) })
	user.Delete()
}
