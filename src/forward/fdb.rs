//! What a hub knows of where devices are, for programs: listed, added to and removed from.

use std::sync::Arc;

use rustix::io::Errno;

use crate::conn::impair::open_end;
use crate::conn::{self, Conn};
use crate::error::{Error, Result};
use crate::forward::hub::{self, Hub};
use crate::runtime::handle::Ref;
use crate::switch::Kind;
use crate::switch::table::Mac;
use crate::switch::vlan::LAST;

/// The flags of an entry of a hub's table; see qnet_hub_fdb().
#[allow(non_camel_case_types, clippy::enum_variant_names)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum qnet_fdb_flag {
    /// It was added by qnet_hub_fdb_add().
    QNET_FDB_STATIC = 1,
    /// It was learned at a secure port (QNET_OPT_SECURE).
    QNET_FDB_SECURE = 2,
}

/// What is known of an address.
pub struct Known {
    pub mac: [u8; 6],
    pub vlan: u16,
    pub flags: u32,
    pub moves: u32,
    pub conn: Ref<Conn>,
    pub age_ms: u64,
}

/// A VLAN as C tells it.
fn vlan_of(vlan: i32) -> Result<u16> {
    let number = u16::try_from(vlan).ok().filter(|vlan| *vlan <= LAST);
    number.ok_or_else(|| Error::invalid(format!("VLAN {vlan} is none: they are from 0 to {LAST}")))
}

/// The address of a device as C tells it.
fn mac_of(mac: [u8; 6]) -> Result<Mac> {
    let mac = Mac::of(mac);
    if mac.is_group() {
        return Err(Error::invalid("that is the address of a group"));
    }
    Ok(mac)
}

const NS_PER_MS: u64 = 1_000_000;

/// All that the hub knows now, in no particular order.
pub fn list(hub: Ref<Hub>) -> Result<Vec<Known>> {
    let mut known = known(hub)?;
    // The switch is not locked any more: states are locked before it.
    known.iter_mut().for_each(|known| known.conn = given(known.conn));
    Ok(known)
}

/// The connection that a program was given: of its own device on a hub it is the other end.
fn given(conn: Ref<Conn>) -> Ref<Conn> {
    let twin = conn.state().ok().filter(|state| state.is_hubs).and_then(|state| state.twin());
    twin.unwrap_or(conn)
}

fn known(hub: Ref<Hub>) -> Result<Vec<Known>> {
    let switch = hub::switch(hub)?;
    let mut inside = switch.lock();
    let now = inside.forget_old();
    let known = inside.entries().filter_map(|(mac, entry, outlet)| {
        let is_secure = outlet.rules.as_ref().is_some_and(|rules| rules.is_secure);
        let flags = match (entry.is_static(), is_secure) {
            (true, _) => qnet_fdb_flag::QNET_FDB_STATIC as u32,
            (false, true) => qnet_fdb_flag::QNET_FDB_SECURE as u32,
            (false, false) => 0,
        };
        Some(Known {
            mac: mac.bytes(),
            vlan: mac.vlan(),
            flags,
            moves: entry.moves,
            conn: conn::table().get(outlet.conn).ok()?,
            age_ms: entry.quiet_for(now) / NS_PER_MS,
        })
    });
    Ok(known.collect())
}

/// Has an address be at a connection's port until that is gone.
pub fn add(hub: Ref<Hub>, mac: [u8; 6], vlan: i32, conn: Ref<Conn>) -> Result<()> {
    let mac = mac_of(mac)?.in_vlan(vlan_of(vlan)?);
    let switch = hub::switch(hub)?;
    let (_, state) = open_end(conn)?;
    let port = state.port.as_ref().filter(|port| Arc::ptr_eq(&port.switch, &switch));
    let port = port.ok_or_else(|| Error::invalid("the connection is not attached to the hub"))?;
    match switch.lock().fix(mac, port.id) {
        true => Ok(()),
        false => Err(Error::Os(Errno::NOSPC)),
    }
}

/// Removes one address, or all that were learned, from one VLAN or, for -1, every one. Returns how many.
pub fn remove(hub: Ref<Hub>, mac: Option<[u8; 6]>, vlan: i32) -> Result<usize> {
    let mac = mac.map(mac_of).transpose()?;
    let vlan = (vlan != -1).then(|| vlan_of(vlan)).transpose()?;
    let switch = hub::switch(hub)?;
    let mut inside = switch.lock();
    inside.forget_old();
    match &mut inside.kind {
        Kind::Hub { table, .. } => Ok(table.remove(mac, vlan)),
        Kind::Link { .. } => Ok(0),
    }
}
