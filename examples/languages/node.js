// node.js NETWORK ADDRESS [--leave] - from Node with koffi: asks who has 10.0.2.1, and receives the
// answer by pulling, then with a handler. With --leave it sends back what comes, and exits in the middle
// of it without closing anything.
//
// Handlers run in Node's event loop, and the library's thread waits for the loop. So calls that wait for
// a handler (setting one, closing) or for a frame are made with .async and never block the loop. The text
// of a failure belongs to the thread that made the call, so these calls only give the code.

const { promisify } = require('node:util');
const koffi = require('koffi');

const FRAME_MAX = 69632, OPT_WAIT = 12;
const lib = koffi.load('libqnet.so.0');
koffi.opaque('qnet_conn');
koffi.proto('void qnet_handler(void *user, const uint8_t *frame, size_t len)');
const dial = lib.func('int qnet_dial(const char *network, const char *address, _Out_ qnet_conn **out)');
const hwaddr = lib.func('int qnet_hwaddr(qnet_conn *conn, uint8_t *mac)');
const send = lib.func('int qnet_send(qnet_conn *conn, const uint8_t *frame, size_t len)');
const recv = promisify(
    lib.func('int qnet_recv(qnet_conn *conn, uint8_t *buf, size_t cap, int timeout_ms)').async);
const unsetHandler = lib.func(
    'int qnet_set_handler(qnet_conn *conn, qnet_handler *handler, void *user)');
const setHandler = promisify(unsetHandler.async);
const set = lib.func('int qnet_set(qnet_conn *conn, int option, int64_t value)');
const wait = lib.func('int qnet_wait(qnet_conn *conn, int timeout_ms)');
const close = promisify(lib.func('int qnet_close(qnet_conn *conn)').async);
const lastError = lib.func('const char *qnet_last_error()');
const strerror = lib.func('const char *qnet_strerror(int code)');

// Return a call's result, unless it failed: for calls on this thread, and for those made with .async.
function check(code) {
    if (code < 0) throw new Error(lastError());
    return code;
}

async function waited(call) {
    const code = await call;
    if (code < 0) throw new Error(strerror(code));
    return code;
}

function arpRequest(mac) {
    const head = Buffer.from('08060001080006040001', 'hex');
    return Buffer.concat([Buffer.alloc(6, 0xff), mac, head, mac, Buffer.from([10, 0, 2, 15]),
        Buffer.alloc(6), Buffer.from([10, 0, 2, 1])]);
}

function show(how, frame) {
    if (frame.length >= 42 && frame.readUInt16BE(12) === 0x0806 && frame[21] === 2)
        console.log(how, '10.0.2.1 is at', frame.toString('hex', 22, 28).replace(/..(?!$)/g, '$&:'));
}

async function main(network, address, leave) {
    const out = [null], mac = Buffer.alloc(6), buf = Buffer.alloc(FRAME_MAX);
    check(dial(network, address, out));
    const conn = out[0];
    check(hwaddr(conn, mac));
    const request = arpRequest(mac);

    if (!leave) {
        check(send(conn, request, request.length));
        // Not -1, because Node does not exit before every such call has returned.
        show('pulled:', buf.subarray(0, await waited(recv(conn, buf, buf.length, 10000))));
    }
    let count = 0, finish;
    const finished = new Promise((resolve) => { finish = resolve; });
    const alive = setInterval(() => {}, 1000); // a handler alone does not keep Node running
    const handler = koffi.register((user, data, len) => {
        // The frame is lent for the call: decoding copies it.
        const frame = Buffer.from(koffi.decode(data, 'uint8_t', Number(len)));
        if (leave) check(send(conn, frame, frame.length));
        else show('handled:', frame);
        if (++count === (leave ? 100 : 1)) finish();
    }, 'qnet_handler *');
    // A call of a handler while Node exits would abort the process. Node cannot wait for the handler
    // then; it can only give a call that is just beginning the time to be queued.
    process.on('exit', () => {
        set(conn, OPT_WAIT, 0);
        unsetHandler(conn, null, null);
        wait(conn, 10);
    });
    await waited(setHandler(conn, handler, null));
    if (!leave) check(send(conn, request, request.length));
    await finished;
    clearInterval(alive);
    if (leave) {
        console.log('leaving');
        return;
    }
    await waited(close(conn)); // waits for the handler too
    koffi.unregister(handler);
}

main(...process.argv.slice(2));
