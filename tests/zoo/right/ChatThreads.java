// contract: chat
// language: Java
// packages: default-jdk-headless
// build: javac -d {out} {file}
// start: java -Xmx256m -cp {out} ChatThreads {host} {port}
// dialect: it numbers its guests and puts the name before each line: `<guest7> hello`
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/** Two threads for each client: one hears it, the other speaks to it. */
public class ChatThreads {
    static final int MAX_LINE = 64 * 1024;
    static final int MAX_PENDING = 4 * 1024 * 1024; // kept for a client that does not read
    static final int PATIENCE_MS = 3000; // for a leaver to take what it is owed and to close

    private static final Set<Client> room = new LinkedHashSet<>(); // its lock guards the fields of all clients, too

    static void say(ByteArrayOutputStream lines) {
        if (lines.size() == 0) return;
        byte[] block = lines.toByteArray();
        synchronized (room) {
            for (Client client : List.copyOf(room)) client.owe(block);
        }
    }

    static class Client {
        private final Socket socket;
        private final byte[] name;
        private final Deque<byte[]> pending = new ArrayDeque<>();
        private int size; // of what is pending, and of what is being sent just now
        private boolean left;

        Client(Socket socket, int number) {
            this.socket = socket;
            this.name = ("<guest" + number + "> ").getBytes(StandardCharsets.US_ASCII);
        }

        void join() {
            Thread speaker = new Thread(this::speak);
            Thread hearer = new Thread(() -> serve(speaker));
            synchronized (room) {
                room.add(this);
            }
            try {
                speaker.start();
                hearer.start();
            } catch (OutOfMemoryError noThread) {
                drop();
            }
        }

        void leave() {
            synchronized (room) {
                left = true;
                room.remove(this);
                room.notifyAll();
            }
        }

        void drop() {
            leave();
            try {
                socket.setSoLinger(true, 0); // RST: what the kernel still keeps for it is freed, too
            } catch (IOException alreadyClosed) {
                // then it is gone as it is
            }
            close();
        }

        void close() {
            try {
                socket.close(); // wakes both threads
            } catch (IOException ignored) {
                // it is closed all the same
            }
        }

        void owe(byte[] block) {
            if (size + block.length > MAX_PENDING) {
                drop();
                return;
            }
            size += block.length;
            pending.add(block);
            room.notifyAll();
        }

        void speak() {
            try {
                OutputStream out = socket.getOutputStream();
                while (true) {
                    byte[] block;
                    synchronized (room) {
                        while (pending.isEmpty() && !left) room.wait();
                        block = pending.poll();
                    }
                    if (block == null) break;
                    out.write(block); // waits for a slow reader; nobody else does
                    synchronized (room) {
                        size -= block.length;
                    }
                }
                socket.shutdownOutput();
            } catch (IOException | InterruptedException brokenOff) {
                leave();
            }
        }

        void serve(Thread speaker) {
            try {
                socket.setTcpNoDelay(true);
                InputStream in = socket.getInputStream();
                String parting = hear(in);
                synchronized (room) {
                    if (parting != null && !left) owe(parting.getBytes(StandardCharsets.US_ASCII));
                    leave();
                }
                speaker.join(PATIENCE_MS);
                // close() with unread input would be RST: read on to the client's FIN.
                long deadline = System.nanoTime() + PATIENCE_MS * 1_000_000L;
                socket.setSoTimeout(PATIENCE_MS);
                byte[] ignored = new byte[8192];
                while (System.nanoTime() < deadline && in.read(ignored) >= 0) continue;
            } catch (IOException | InterruptedException brokenOff) {
                // RST, or too slow
            } finally {
                leave();
                close();
            }
        }

        /** Until FIN, quit or a line that is too long; returns what to say about it. */
        String hear(InputStream in) throws IOException {
            byte[] buffer = new byte[MAX_LINE + 2]; // a line, "\r" and "\n"
            int length = 0;
            while (true) {
                int count = in.read(buffer, length, buffer.length - length);
                ByteArrayOutputStream lines = new ByteArrayOutputStream();
                if (count < 0) {
                    if (length > 0) put(lines, buffer, 0, length); // a last line needs no newline
                    say(lines);
                    return null;
                }
                int start = 0;
                for (int i = length; i < length + count; i++) {
                    if (buffer[i] != '\n') continue;
                    int end = i > start && buffer[i - 1] == '\r' ? i - 1 : i;
                    boolean quit = end - start == 4 && new String(buffer, start, 4, StandardCharsets.ISO_8859_1).equals("quit");
                    if (quit || end - start > MAX_LINE) {
                        say(lines);
                        return quit ? null : "error: line too long\n";
                    }
                    if (end > start) put(lines, buffer, start, end - start);
                    start = i + 1;
                }
                say(lines);
                length = length + count - start;
                System.arraycopy(buffer, start, buffer, 0, length);
                if (length == buffer.length) return "error: line too long\n";
            }
        }

        private void put(ByteArrayOutputStream lines, byte[] buffer, int start, int count) {
            lines.writeBytes(name);
            lines.write(buffer, start, count);
            lines.write('\n');
        }
    }

    public static void main(String[] args) throws Exception {
        ServerSocket server = new ServerSocket(Integer.parseInt(args[1]), 512, InetAddress.getByName(args[0]));
        for (int number = 1; ; number++) {
            try {
                new Client(server.accept(), number).join();
            } catch (IOException noDescriptor) {
                System.err.println(noDescriptor);
                Thread.sleep(50);
            }
        }
    }
}
