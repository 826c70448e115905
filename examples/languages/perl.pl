#!/usr/bin/perl
# perl.pl NETWORK ADDRESS [--leave] - from Perl with FFI::Platypus: asks who has 10.0.2.1, and receives
# the answer by pulling. With --leave it sends back what comes, and exits in the middle of it without
# closing anything.
#
# No handler: a Perl closure may not be called on threads that its interpreter does not know. While one
# waits in qnet_recv nothing else runs, so a program with more to do gives qnet_fd to its event loop.

use strict;
use warnings;
use FFI::Platypus 2.00;
use FFI::Platypus::Buffer qw(scalar_to_buffer);

use constant FRAME_MAX => 69632;

my $ffi = FFI::Platypus->new(api => 2, lib => ['libqnet.so.0']);
$ffi->attach(qnet_dial => ['string', 'string', 'opaque*'] => 'int');
$ffi->attach(qnet_hwaddr => ['opaque', 'opaque'] => 'int');
$ffi->attach(qnet_send => ['opaque', 'opaque', 'size_t'] => 'int');
$ffi->attach(qnet_recv => ['opaque', 'opaque', 'size_t', 'int'] => 'int');
$ffi->attach(qnet_close => ['opaque'] => 'int');
$ffi->attach(qnet_last_error => [] => 'string');

# Returns a call's result, unless it failed. (Not for time-outs, which leave no text.)
sub check {
    my ($code) = @_;
    die qnet_last_error() . "\n" if $code < 0;
    return $code;
}

sub arp_request {
    my ($mac) = @_;
    return "\xff" x 6 . $mac . pack('H*', '08060001080006040001') . $mac
        . pack('C4 x6 C4', 10, 0, 2, 15, 10, 0, 2, 1);
}

sub show {
    my ($how, $frame) = @_;
    return if length $frame < 42;
    my ($type, $operation, $mac) = unpack 'x12 n x6 n H12', $frame;
    print "$how 10.0.2.1 is at ", join(':', unpack '(A2)*', $mac), "\n"
        if $type == 0x0806 && $operation == 2;
}

my ($network, $address, $leave) = @ARGV;
my ($mac, $buf) = ("\0" x 6, "\0" x FRAME_MAX);
my ($room, $size) = scalar_to_buffer($buf);    # its address, valid until it is assigned to
check(qnet_dial($network, $address, \my $conn));
check(qnet_hwaddr($conn, (scalar_to_buffer($mac))[0]));
if ($leave) {
    check(qnet_send($conn, $room, check(qnet_recv($conn, $room, $size, -1)))) for 1 .. 100;
    print "leaving\n";
} else {
    my $request = arp_request($mac);
    check(qnet_send($conn, scalar_to_buffer($request)));
    show('pulled:', substr $buf, 0, check(qnet_recv($conn, $room, $size, -1)));
    check(qnet_close($conn));
}
