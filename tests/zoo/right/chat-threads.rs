// contract: chat
// language: Rust
// packages: rustc
// build: rustc --edition 2021 -O -o {out} {file}
// start: {out} {host} {port}
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

const MAX_LINE: usize = 64 * 1024;
const MAX_PENDING: usize = 4 * 1024 * 1024; // kept for a client that does not read
const PATIENCE: Duration = Duration::from_secs(3); // for a leaver to take what it is owed and to close

#[derive(Default)]
struct State {
    pending: VecDeque<Arc<Vec<u8>>>,
    size: usize, // of what is pending, and of what is being sent just now
    left: bool,
    spoken: bool, // the speaker is done
}

struct Client {
    stream: TcpStream,
    state: Mutex<State>,
    wake: Condvar,
}

impl Client {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn leave(&self) {
        self.state().left = true;
        self.wake.notify_all();
    }

    /// Never waits. False if the client has too much to read already.
    fn owe(&self, block: &Arc<Vec<u8>>) -> bool {
        let mut state = self.state();
        if state.size + block.len() > MAX_PENDING {
            return false;
        }
        state.size += block.len();
        state.pending.push_back(Arc::clone(block));
        self.wake.notify_all();
        true
    }

    /// The only one that writes to this stream.
    fn speak(&self) {
        loop {
            let mut state = self.state();
            while state.pending.is_empty() && !state.left {
                state = self.wake.wait(state).unwrap();
            }
            let block = state.pending.pop_front();
            drop(state);
            let done = match &block {
                Some(block) => (&self.stream).write_all(block).is_err(),
                None => {
                    let _ = self.stream.shutdown(Shutdown::Write);
                    true
                }
            };
            let mut state = self.state();
            state.size -= block.map_or(0, |b| b.len());
            if done {
                state.spoken = true;
                self.wake.notify_all();
                return;
            }
        }
    }
}

#[derive(Default)]
struct Room(Mutex<HashMap<usize, Arc<Client>>>);

enum Parting {
    Nothing,
    TooLong,
}

impl Room {
    fn say(&self, block: Vec<u8>) {
        if block.is_empty() {
            return;
        }
        let block = Arc::new(block);
        self.0.lock().unwrap().retain(|_, client| {
            let fits = client.owe(&block);
            if !fits {
                client.leave();
                let _ = client.stream.shutdown(Shutdown::Both); // wakes its threads
            }
            fits
        });
    }

    fn hear(&self, client: &Client) -> io::Result<Parting> {
        let mut buffer = vec![0; MAX_LINE + 2]; // a line, "\r" and "\n"
        let mut length = 0;
        loop {
            let count = (&client.stream).read(&mut buffer[length..])?;
            let mut block = Vec::new();
            if count == 0 {
                if length > 0 && !client.state().left {
                    block.extend_from_slice(&buffer[..length]); // a last line needs no newline
                    block.push(b'\n');
                }
                self.say(block);
                return Ok(Parting::Nothing);
            }
            let mut start = 0;
            let end = length + count;
            while let Some(at) = buffer[length.max(start)..end].iter().position(|&b| b == b'\n') {
                let newline = length.max(start) + at;
                let line = &buffer[start..newline];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if line == b"quit" {
                    self.say(block);
                    return Ok(Parting::Nothing);
                }
                if line.len() > MAX_LINE {
                    self.say(block);
                    return Ok(Parting::TooLong);
                }
                if !line.is_empty() {
                    block.extend_from_slice(line);
                    block.push(b'\n');
                }
                start = newline + 1;
            }
            self.say(block);
            buffer.copy_within(start..end, 0);
            length = end - start;
            if length == buffer.len() {
                return Ok(Parting::TooLong);
            }
        }
    }

    fn forget(&self, number: usize, client: &Client) {
        self.0.lock().unwrap().remove(&number);
        client.leave();
    }

    fn serve(&self, number: usize, client: &Client) {
        let parting = self.hear(client);
        self.0.lock().unwrap().remove(&number);
        if let Ok(Parting::TooLong) = parting {
            client.owe(&Arc::new(b"error: line too long\n".to_vec()));
        }
        client.leave();
        if parting.is_ok() {
            // What it is owed goes out, then our FIN; closing with unread input would be RST, so read on to
            // the client's FIN.
            let deadline = Instant::now() + PATIENCE;
            let _ = client.wake.wait_timeout_while(client.state(), PATIENCE, |s| !s.spoken);
            let _ = client.stream.set_read_timeout(Some(PATIENCE));
            let mut ignored = [0; 8192];
            while Instant::now() < deadline && matches!((&client.stream).read(&mut ignored), Ok(n) if n > 0) {}
        }
        let _ = client.stream.shutdown(Shutdown::Both); // wakes the speaker, if it still waits
    }
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let port = args[2].parse::<u16>().expect("a port");
    let listener = TcpListener::bind((args[1].as_str(), port))?;
    let room = Arc::new(Room::default());
    for (number, stream) in listener.incoming().enumerate() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                eprintln!("accept: {error}"); // no descriptor is free, mostly
                thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let client = Arc::new(Client { stream, state: Mutex::default(), wake: Condvar::new() });
        room.0.lock().unwrap().insert(number, Arc::clone(&client));
        let (hearer, its_room) = (Arc::clone(&client), Arc::clone(&room));
        let started = thread::Builder::new().spawn(move || {
            let speaker = Arc::clone(&hearer);
            match thread::Builder::new().spawn(move || speaker.speak()) {
                Ok(_) => its_room.serve(number, &hearer), // no join(): both threads end by themselves
                Err(_) => its_room.forget(number, &hearer),
            }
        });
        if started.is_err() {
            room.forget(number, &client); // no thread to be had
        }
    }
    Ok(())
}
