//! Putting the broker together and taking it down: everything between the command line and the running cores.
//!
//! [`platform`] checks the machine, [`front`] listens for clients, [`admin`] for operators, [`signals`] brings their orders,
//! [`watch`] notices new certificates, [`systemd`] tells the service manager.

mod admin;
mod front;
mod platform;
mod signals;
mod systemd;
mod watch;

pub use platform::forbid_huge_pages;

use crate::api::documentation;
use crate::audit;
use crate::auth;
use crate::broker::message::Message;
use crate::broker::store::PartitionLog;
use crate::broker::{ClientsParts, Core, CoreParts, HeadParts, Loaded, Store};
use crate::config::Config;
use crate::id::{Bridge, CoreId, Partition};
use crate::metrics;
use crate::registry::mpass::{self, Bounds};
use crate::rt::blocking::Pool;
use crate::rt::bus::{self, Ends};
use crate::rt::pulse::{self, Heart};
use crate::rt::socket::{Reservation, reserve};
use crate::rt::{self, allocator, cpus, deadline, executor};
use crate::state::lock::DirectoryLock;
use front::Front;
use futures_channel::mpsc::{UnboundedReceiver, unbounded};
use futures_lite::{FutureExt, StreamExt};
use signals::Order;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use systemd::Manager;
use watch::Watch;

/// Threads for blocking work. Few, because the work is for the disk.
const HELPER_THREADS: usize = 4;
/// How long an executor may take from its start to listening.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// A broker that serves.
pub struct Running {
    /// Addresses of the HTTPS listener, the real port in place of 0.
    pub addresses: Vec<SocketAddr>,
    /// Addresses of the admin listener.
    pub admin: Vec<SocketAddr>,
    done: Receiver<()>,
    _held: Held,
}

/// What must live as long as the broker.
struct Held {
    _lock: DirectoryLock,
    _reservations: Vec<Reservation>,
}

/// Everything that can fail has not failed.
struct Prepared {
    config: Arc<Config>,
    cores: usize,
    cpus: Vec<usize>,
    loaded: Loaded,
    store: Store,
    listen: Vec<Reservation>,
    admin: Vec<Reservation>,
    watch: Watch,
}

/// What each executor thread gets.
struct Start {
    parts: CoreParts,
    ends: Ends<Message>,
    addresses: Vec<SocketAddr>,
    opened: Sender<io::Result<()>>,
    heart: Arc<Heart>,
    first: Option<First>,
}

/// What core 0 gets beside that.
struct First {
    loaded: Loaded,
    orders: UnboundedReceiver<Order>,
    admin: Vec<SocketAddr>,
    manager: Manager,
    done: Sender<()>,
}

/// Starts the broker. Returns when it is recovered and listening, or with every reason why it cannot.
pub fn start(config: Config) -> Result<Running, Vec<String>> {
    end_with_any_panic();
    let manager =
        Manager::from_environment().map_err(|e| vec![format!("NOTIFY_SOCKET cannot be used: {e}")])?;
    let cpus = cpus::allowed().map_err(|e| vec![format!("the CPUs of this process cannot be read: {e}")])?;
    let cores = config.server.cores.unwrap_or(cpus.len());
    platform::check(cores).map_err(|problem| vec![problem])?;
    platform::raise_open_files();
    allocator::keep();
    let watch = Watch::begin(config.certificate_files());
    let loaded = Loaded::read(&config, cores)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let (listen, admin) = reserve_all(&config).map_err(|problem| vec![problem])?;
    manager.status("recovering");
    let store = recover(&config).map_err(|problem| vec![problem])?;
    let prepared = Prepared { config: Arc::new(config), cores, cpus, loaded, store, listen, admin, watch };
    launch(prepared, manager).map_err(|problem| vec![problem])
}

fn recover(config: &Config) -> Result<Store, String> {
    let began = Instant::now();
    let store = Store::open(&config.storage)?;
    let took_ms = began.elapsed().as_millis() as u64;
    tracing::info!(replayed_frames = store.replayed, took_ms, "storage is recovered");
    Ok(store)
}

/// A panic on an executor would leave the others waiting for it, and one on a helper thread would leave its caller waiting.
fn end_with_any_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        crate::broker::abort("a thread panicked");
    }));
}

/// Reserves every address; further addresses with port 0 take the port that the first one got.
fn reserve_all(config: &Config) -> Result<(Vec<Reservation>, Vec<Reservation>), String> {
    let all = |addresses: &[SocketAddr], setting: &str| {
        let mut reserved: Vec<Reservation> = Vec::new();
        for &address in addresses {
            let mut address = address;
            if let (0, Some(first)) = (address.port(), reserved.first()) {
                address.set_port(first.address.port());
            }
            reserved.push(
                reserve(address).map_err(|e| format!("{setting} {address} cannot be listened on: {e}"))?,
            );
        }
        Ok::<_, String>(reserved)
    };
    Ok((all(&config.server.listen, "[server] listen")?, all(&config.admin.listen, "[admin] listen")?))
}

/// Starts one executor per core and waits until all of them listen.
fn launch(prepared: Prepared, manager: Manager) -> Result<Running, String> {
    let Prepared { config, cores, cpus, loaded, store, listen, admin, watch } = prepared;
    let addresses: Vec<_> = listen.iter().map(|reserved| reserved.address).collect();
    let admin_addresses: Vec<_> = admin.iter().map(|reserved| reserved.address).collect();
    let (order, orders) = unbounded();
    signals::listen(order.clone()).map_err(|e| format!("signals cannot be listened to: {e}"))?;
    if !config.tls.watch_interval.is_zero() {
        watch
            .start(config.tls.watch_interval, order)
            .map_err(|e| format!("the thread that watches certificates does not start: {e}"))?;
    }
    documentation::read();
    // On a processor of their own where there is one: an executor that a helper takes the processor from makes all its clients wait.
    let spare = cpus.get(cores..).unwrap_or_default();
    let pool = Pool::start("helper", HELPER_THREADS, spare)
        .map_err(|e| format!("the helper threads do not start: {e}"))?;
    // One for each core, which is as fast as it sends. A write of the journal waits behind all that the disk reads, and memory for appends
    // must not wait behind threads that wait for the disk.
    let readers = Pool::start("reader", cores, spare)
        .map_err(|e| format!("the threads that read do not start: {e}"))?;
    let clients =
        clients(&config).map_err(|e| format!("the threads that ask for clients do not start: {e}"))?;
    let recorder = audit::start(&config)?;
    let (done, stopped) = channel();
    let (opened, opening) = channel();
    let Store { lock, genesis, partitions, sequencer, state, logs, .. } = store;
    let mut head = Some(HeadParts {
        sequencer,
        state,
        dir: config.storage.dir.clone(),
        cluster: genesis.cluster,
        clients,
    });
    let mut first =
        Some(First { loaded, orders, admin: admin_addresses.clone(), manager: manager.clone(), done });
    let mut logs_by_core = spread(logs, cores);
    let mut hearts = Vec::new();
    let bridge = Bridge::of_this_process();
    for (core, ends) in bus::mesh(cores).into_iter().enumerate() {
        let parts = CoreParts {
            id: CoreId(core as u8),
            config: config.clone(),
            partitions,
            bridge,
            pool: pool.clone(),
            readers: readers.clone(),
            logs: std::mem::take(&mut logs_by_core[core]),
            recorder: recorder.clone(),
            head: head.take(),
        };
        let heart = Arc::new(Heart::default());
        hearts.push(heart.clone());
        let (addresses, opened, first) = (addresses.clone(), opened.clone(), first.take());
        let start = Start { parts, ends, addresses, opened, heart, first };
        executor::start(core, cpus[core % cpus.len()], move || {
            auth::draw_seed();
            run(start)
        })
        .map_err(|e| e.to_string())?;
    }
    drop(opened);
    watch_hearts(hearts, &manager).map_err(|e| format!("the pulse thread does not start: {e}"))?;
    wait_until_open(&opening, cores)?;
    manager.ready();
    manager.status("serving");
    let held = Held { _lock: lock, _reservations: listen.into_iter().chain(admin).collect() };
    Ok(Running { addresses, admin: admin_addresses, done: stopped, _held: held })
}

/// What the head needs when clients come from an API. The data directory must be there.
fn clients(config: &Config) -> io::Result<Option<ClientsParts>> {
    let Some(settings) = config.registry.mpass().cloned() else { return Ok(None) };
    let bounds = Bounds { storage: config.storage.clone(), defaults: config.audit.defaults.clone() };
    let file = config.storage.dir.join(mpass::FILE);
    let note = |text: String| tracing::warn!(file = %file.display(), "the file of known clients {text}");
    let remembered = mpass::read_remembered(&config.storage.dir, &bounds, note);
    let threads = Pool::start("mpass", settings.requests_max, &[])?;
    Ok(Some(ClientsParts { settings, bounds, threads, remembered }))
}

/// The partitions of each core.
fn spread(logs: Vec<(Partition, PartitionLog)>, cores: usize) -> Vec<Vec<(Partition, PartitionLog)>> {
    let mut by_core: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
    for (partition, log) in logs {
        by_core[usize::from(partition.0) % cores].push((partition, log));
    }
    by_core
}

/// Every core says that it listens, or why it cannot; an executor that did not start says nothing.
fn wait_until_open(opening: &Receiver<io::Result<()>>, cores: usize) -> Result<(), String> {
    for _ in 0..cores {
        match opening.recv_timeout(OPEN_WITHIN) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("a core cannot listen: {error}")),
            Err(_) => {
                return Err("a core did not start: see kernel.io_uring_disabled and RLIMIT_MEMLOCK".into());
            }
        }
    }
    Ok(())
}

/// Wakes the cores and feeds the watchdog while all of them make progress.
fn watch_hearts(hearts: Vec<Arc<Heart>>, manager: &Manager) -> io::Result<()> {
    let manager = manager.clone();
    let interval = manager.watchdog().map(|limit| limit / 4);
    let mut fed = Instant::now();
    let mut was_well = true;
    pulse::start(hearts, move |well| {
        if was_well != well {
            was_well = well;
            if well {
                tracing::warn!("all cores make progress again");
            } else {
                tracing::error!("a core makes no progress");
            }
        }
        if well && interval.is_some_and(|interval| fed.elapsed() >= interval) {
            fed = Instant::now();
            manager.alive();
        }
    })
}

/// What runs on each executor, for as long as the process lives.
async fn run(start: Start) {
    let Start { parts, ends, addresses, opened, heart, first } = start;
    heart.attach().await;
    let (bus, inbox) = ends.connect().await;
    let core = Core::new(parts, bus, Box::new(Front::new(addresses, opened)));
    core.serve(inbox);
    core.start_upkeep();
    rt::spawn(look_at_deadlines(core.clone()));
    rt::spawn(core.clone().look_after_guests());
    let pulsed = core.clone();
    rt::spawn(heart.react(move |delay| metrics::record(&pulsed.metrics.distributions.stall_ns, delay)));
    if let Some(first) = first {
        lead(&core, first).await;
    }
    std::future::pending::<()>().await;
}

async fn look_at_deadlines(core: Rc<Core>) {
    loop {
        rt::sleep(deadline::RESOLUTION).await;
        core.deadlines.expire(Instant::now());
        core.sessions.tick(core.uptime_ms());
    }
}

/// What core 0 does beside: the head, the admin listener, and orders.
async fn lead(core: &Rc<Core>, first: First) {
    let First { loaded, mut orders, admin, manager, done } = first;
    let head = core.head().expect("core 0 has the head").clone();
    head.start(core);
    rt::spawn(allocator::give_back(core.pool.clone()));
    head.go_live(core, loaded).await;
    if let Err(error) = admin::start(core, &admin) {
        crate::broker::abort(&format!("the admin listener does not start: {error}"));
    }
    while let Some(order) = orders.next().await {
        match order {
            Order::Reload => head.reload(core).await,
            Order::ReloadCertificates => head.reload_certificates(core).await,
            Order::Stop => break,
        }
    }
    tracing::info!("stopping");
    manager.stopping();
    let limit = core.config.server.stop_timeout;
    let too_late = async {
        rt::sleep(limit).await;
        tracing::warn!(
            ?limit,
            "stopping takes too long: what is under way is cut off, nothing acknowledged is lost"
        );
    };
    head.stop(core).or(too_late).await;
    // The main thread waits for this, or has given up waiting.
    let _ = done.send(());
}

impl Running {
    /// Waits until the broker was told to stop and has stopped.
    pub fn wait(self) {
        // The head never goes away without saying so.
        let _ = self.done.recv();
    }
}
