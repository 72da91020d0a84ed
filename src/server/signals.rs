//! Signals become messages to the head.

use futures_channel::mpsc::UnboundedSender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;

/// What the running broker is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGHUP: read the registry and the certificates again.
    Reload,
    /// Their files have changed: read the certificates again.
    ReloadCertificates,
    /// SIGTERM or SIGINT: stop in good order.
    Stop,
}

/// Sends orders as they come. A second order to stop ends the process at once.
pub fn listen(orders: UnboundedSender<Order>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || forward(&mut signals, &orders))?;
    Ok(())
}

fn forward(signals: &mut Signals, orders: &UnboundedSender<Order>) {
    let mut stopping = false;
    for signal in signals.forever() {
        let order = if signal == SIGHUP { Order::Reload } else { Order::Stop };
        if order == Order::Stop && std::mem::replace(&mut stopping, true) {
            // Nothing acknowledged is lost: this is the crash that recovery is made for.
            std::process::exit(130);
        }
        // The head lives as long as the process.
        drop(orders.unbounded_send(order));
    }
}
