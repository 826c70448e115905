//! Capturing hubs, and closing captures, which have connections and hubs.

use crate::capture::interface::Interface;
use crate::capture::{self, Capture, Numbered, check_name};
use crate::conn;
use crate::error::Result;
use crate::forward::hub::{self, Hub};
use crate::runtime::handle::Ref;

/// Has a capture record what a hub takes in, from now on.
pub fn add_hub(capture: Ref<Capture>, hub: Ref<Hub>, name: Option<&[u8]>) -> Result<()> {
    let mut captured = capture.state()?;
    hub.check()?;
    check_name(name)?;
    hub::change_probes(hub, |probes| {
        let interface = captured.add(hub.token, name, Vec::new(), Numbered::Hub)?;
        probes.add(&interface);
        Ok(())
    })
}

/// Ends a capture, and waits until it is written.
pub fn close(capture: Ref<Capture>) -> Result<()> {
    let closing = capture::close(capture)?;
    for (token, interface) in &closing.members {
        if let Ok(conn) = conn::table().get(*token) {
            conn::capture::take_out(conn, interface);
        } else if let Ok(hub) = hub::table().get(*token) {
            // It may be gone.
            let _ = take_out(hub, interface);
        }
    }
    closing.finish();
    Ok(())
}

fn take_out(hub: Ref<Hub>, interface: &Interface) -> Result<()> {
    hub::change_probes(hub, |probes| {
        probes.remove(interface);
        Ok(())
    })
}
