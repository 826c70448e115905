//! What is set for a connection as the port of a hub: its VLANs, and options. While it is plugged in, the switch
//! has a copy.

use std::sync::Arc;

use crate::conn::impair::{open_end, plugged_state};
use crate::conn::{Conn, State};
use crate::error::Result;
use crate::options::{self, Options};
use crate::runtime::handle::Ref;
use crate::switch::rules::Rules;
use crate::switch::vlan::Vlan;

/// Whether that is an option of ports.
pub fn has(option: i32) -> bool {
    (options::ISOLATED..=options::MIRRORED).contains(&option)
}

/// Puts a text of VLANs in force. What is known behind the port is forgotten.
pub fn set_vlan(conn: Ref<Conn>, text: &[u8]) -> Result<()> {
    let vlan = Vlan::parse(text)?.map(Arc::new);
    let (_, mut state) = open_end(conn)?;
    let is_needed = vlan.is_some() || state.vlan.is_some();
    let rules = Rules::of(&state.options, vlan.as_ref());
    state.vlan = vlan;
    if let Some(port) = state.port.as_ref().filter(|_| is_needed) {
        let mut inside = port.switch.lock();
        inside.forget(port.id);
        inside.set_rules(port.id, rules);
    }
    Ok(())
}

pub fn vlan(conn: Ref<Conn>) -> Result<String> {
    Ok(shown(plugged_state(conn)?.1.vlan.as_ref()))
}

/// The text of VLANs; empty for none.
pub fn shown(vlan: Option<&Arc<Vlan>>) -> String {
    vlan.map_or(String::new(), |vlan| vlan.print())
}

/// Applies options to the port.
pub fn configure(state: &State, options: &Options) {
    if let Some(port) = &state.port {
        let rules = Rules::of(options, state.vlan.as_ref());
        port.switch.lock().set_rules(port.id, rules);
    }
}
