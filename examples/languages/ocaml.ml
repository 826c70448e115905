(* ocaml NETWORK ADDRESS [--leave] - from OCaml with ctypes: asks who has 10.0.2.1, and receives the
   answer by pulling. With --leave it sends back what comes, and exits in the middle of it without closing
   anything.

   What may block (the header says which does) releases the runtime's lock: other threads run while it
   waits, and without that a wait for something that one of them does would never end. No handler: OCaml
   has to know a thread before that may call it. *)

open Ctypes

let lib = Dl.dlopen ~filename:"libqnet.so.0" ~flags:[ Dl.RTLD_NOW ]
let foreign name = Foreign.foreign ~from:lib name
let blocking name = Foreign.foreign ~from:lib ~release_runtime_lock:true name
let frame_max = 69632
let dial = blocking "qnet_dial" (string @-> string @-> ptr (ptr void) @-> returning int)
let hwaddr = foreign "qnet_hwaddr" (ptr void @-> ptr char @-> returning int)
let send = blocking "qnet_send" (ptr void @-> ptr char @-> size_t @-> returning int)
let recv = blocking "qnet_recv" (ptr void @-> ptr char @-> size_t @-> int @-> returning int)
let close = blocking "qnet_close" (ptr void @-> returning int)
let last_error = foreign "qnet_last_error" (void @-> returning string)

(* A call's result, unless it failed. (Not for time-outs, which leave no text.) *)
let check code = if code < 0 then failwith (last_error ()) else code
let size n = Unsigned.Size_t.of_int n

let arp_request mac =
  String.concat ""
    [ String.make 6 '\xff'; mac; "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"; mac; "\x0a\x00\x02\x0f";
      String.make 6 '\x00'; "\x0a\x00\x02\x01" ]

let show how frame =
  if String.length frame >= 42 && String.sub frame 12 2 = "\x08\x06" && frame.[21] = '\x02' then
    let byte i = Printf.sprintf "%02x" (Char.code frame.[22 + i]) in
    Printf.printf "%s 10.0.2.1 is at %s\n" how (String.concat ":" (List.init 6 byte))

let () =
  let out = allocate (ptr void) null in
  (* Allocated where the garbage collector does not move it while a call waits. *)
  let buf = CArray.start (CArray.make char frame_max) in
  ignore (check (dial Sys.argv.(1) Sys.argv.(2) out));
  let conn = !@out in
  let receive () = check (recv conn buf (size frame_max) (-1)) in
  if Array.length Sys.argv > 3 then begin
    for _ = 1 to 100 do
      ignore (check (send conn buf (size (receive ()))))
    done;
    print_endline "leaving"
  end
  else begin
    ignore (check (hwaddr conn buf));
    let request = CArray.of_string (arp_request (string_from_ptr buf ~length:6)) in
    ignore (check (send conn (CArray.start request) (size 42)));
    show "pulled:" (string_from_ptr buf ~length:(receive ()));
    ignore (check (close conn))
  end
