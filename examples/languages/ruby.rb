# ruby.rb NETWORK ADDRESS [--leave] - from Ruby with Fiddle: asks who has 10.0.2.1, and receives the
# answer by pulling. With --leave it sends back what comes, and exits in the middle of it without closing
# anything.
#
# No handler: Fiddle's closures may not be called on threads that Ruby does not know, and end the
# process there. A pull lets other threads run while it waits; but Ruby waits for them when it exits,
# so in a thread other than the main one it needs a timeout.

require 'fiddle/import'

module Qnet
  extend Fiddle::Importer
  dlload 'libqnet.so.0'
  extern 'int qnet_dial(const char *, const char *, void *)'
  extern 'int qnet_hwaddr(void *, void *)'
  extern 'int qnet_send(void *, const void *, size_t)'
  extern 'int qnet_recv(void *, void *, size_t, int)'
  extern 'int qnet_close(void *)'
  extern 'const char *qnet_last_error()'

  FRAME_MAX = 69632

  # Returns a call's result, unless it failed. (Not for time-outs, which leave no text.)
  def self.check(code)
    code.negative? ? raise(IOError, qnet_last_error.to_s) : code
  end
end

def arp_request(mac)
  ['ff' * 6, mac.unpack1('H*'), '08060001080006040001', mac.unpack1('H*'), '0a00020f', '00' * 6,
   '0a000201'].pack('H*' * 7)
end

def show(how, frame)
  return unless frame[12, 2] == "\x08\x06".b && frame.getbyte(21) == 2

  puts "#{how} 10.0.2.1 is at #{frame[22, 6].unpack('H2' * 6).join(':')}"
end

network, address, leave = ARGV
out = Fiddle::Pointer.malloc(Fiddle::SIZEOF_VOIDP, Fiddle::RUBY_FREE)
mac = Fiddle::Pointer.malloc(6, Fiddle::RUBY_FREE)
buf = Fiddle::Pointer.malloc(Qnet::FRAME_MAX, Fiddle::RUBY_FREE)

Qnet.check(Qnet.qnet_dial(network, address, out))
conn = out.ptr
Qnet.check(Qnet.qnet_hwaddr(conn, mac))
if leave
  100.times do
    length = Qnet.check(Qnet.qnet_recv(conn, buf, buf.size, -1))
    Qnet.check(Qnet.qnet_send(conn, buf, length))
  end
  puts 'leaving'
else
  request = arp_request(mac[0, 6])
  Qnet.check(Qnet.qnet_send(conn, request, request.bytesize))
  length = Qnet.check(Qnet.qnet_recv(conn, buf, buf.size, -1))
  show('pulled:', buf[0, length])
  Qnet.check(Qnet.qnet_close(conn))
end
