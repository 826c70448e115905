/*
 * Jna.java NETWORK ADDRESS [--leave] - from Java with JNA: asks who has 10.0.2.1, and receives the
 * answer by pulling, then with a handler. With --leave it sends back what comes, and exits in the middle
 * of it without closing anything. It runs as it is: java -cp jna.jar Jna.java ...
 */

import com.sun.jna.Callback;
import com.sun.jna.CallbackThreadInitializer;
import com.sun.jna.Library;
import com.sun.jna.Memory;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.ptr.PointerByReference;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HexFormat;
import java.util.concurrent.CountDownLatch;

class Jna {
    /** size_t is long, on the 64-bit systems that the library is for. */
    interface Qnet extends Library {
        int FRAME_MAX = 69632;

        int qnet_dial(String network, String address, PointerByReference out);
        int qnet_hwaddr(Pointer conn, byte[] mac);
        int qnet_send(Pointer conn, Pointer frame, long len);
        int qnet_recv(Pointer conn, Pointer buf, long cap, int timeoutMs);
        int qnet_set_handler(Pointer conn, FrameHandler handler, Pointer user);
        int qnet_close(Pointer conn);
        String qnet_last_error();
    }

    interface FrameHandler extends Callback {
        void call(Pointer user, Pointer frame, long len);
    }

    static final Qnet LIB = Native.load("libqnet.so.0", Qnet.class);
    static final HexFormat HEX = HexFormat.of();
    static final CountDownLatch DONE = new CountDownLatch(1);
    /** Static, because JNA does not protect it from the garbage collector. */
    static FrameHandler handler;
    static int count;

    /** Returns a call's result, unless it failed. (Not for time-outs, which leave no text.) */
    static int check(int code) {
        if (code < 0) {
            throw new IllegalStateException(LIB.qnet_last_error());
        }
        return code;
    }

    static void ask(Pointer conn) {
        byte[] mac = new byte[6];
        check(LIB.qnet_hwaddr(conn, mac));
        String own = HEX.formatHex(mac);
        byte[] request = HEX.parseHex("ff".repeat(6) + own + "08060001080006040001" + own + "0a00020f"
                + "00".repeat(6) + "0a000201");
        Memory frame = new Memory(request.length);
        frame.write(0, request, 0, request.length);
        check(LIB.qnet_send(conn, frame, frame.size()));
    }

    static void show(String how, Pointer frame, int len) {
        ByteBuffer bytes = frame.getByteBuffer(0, len).order(ByteOrder.BIG_ENDIAN);
        if (len >= 42 && bytes.getShort(12) == 0x0806 && bytes.getShort(20) == 2) {
            String mac = HexFormat.ofDelimiter(":").formatHex(frame.getByteArray(22, 6));
            System.out.println(how + " 10.0.2.1 is at " + mac);
        }
    }

    public static void main(String[] args) throws InterruptedException {
        boolean leave = args.length > 2;
        PointerByReference out = new PointerByReference();
        check(LIB.qnet_dial(args[0], args[1], out));
        Pointer conn = out.getValue();

        if (!leave) {
            Memory buf = new Memory(Qnet.FRAME_MAX);
            ask(conn);
            show("pulled:", buf, check(LIB.qnet_recv(conn, buf, buf.size(), -1)));
        }
        // Runs on a thread of the library, and reads the frame where it is, lent for the call.
        handler = (user, frame, len) -> {
            if (leave) {
                check(LIB.qnet_send(conn, frame, len));
            } else {
                show("handled:", frame, (int) len);
            }
            count++;
            if (!leave || count == 100) {
                DONE.countDown();
            }
        };
        // As a daemon, the thread does not keep Java from exiting. It stays attached, because attaching
        // it for each call is slow, and fails with a message once Java has exited.
        Native.setCallbackThreadInitializer(handler, new CallbackThreadInitializer(true, false, "qnet"));
        check(LIB.qnet_set_handler(conn, handler, null));
        if (!leave) {
            ask(conn);
        }
        DONE.await();
        if (leave) {
            System.out.println("leaving");
            return;
        }
        check(LIB.qnet_close(conn)); // waits for the handler
    }
}
