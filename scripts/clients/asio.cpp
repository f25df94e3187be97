// Files, echoes, timers and a cancelled accept on Asio, every wait on its ring and none on epoll.
#define ASIO_HAS_IO_URING 1
#define ASIO_DISABLE_EPOLL 1
#include <asio.hpp>
#include <asio/random_access_file.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

using asio::ip::tcp;
using bytes = std::vector<unsigned char>;

static std::uint64_t echoed, checked, wrong, fired;

static bytes pattern(std::uint32_t seed, std::size_t len) {
    bytes out(len);
    std::uint32_t state = seed | 0x9e370001u;
    for (auto &byte : out) {
        state = state * 1664525u + 1013904223u;
        byte = static_cast<unsigned char>(state >> 24);
    }
    return out;
}

// Gives back whatever comes in, until the other side ends.
struct session : std::enable_shared_from_this<session> {
    tcp::socket socket;
    bytes buffer = bytes(4096);
    explicit session(tcp::socket s) : socket(std::move(s)) { socket.set_option(tcp::no_delay(true)); }
    void read() {
        socket.async_read_some(asio::buffer(buffer), [self = shared_from_this()](std::error_code e, std::size_t n) {
            if (e) return;
            asio::async_write(self->socket, asio::buffer(self->buffer, n), [self](std::error_code e, std::size_t) {
                if (!e) self->read();
            });
        });
    }
};

// Sends messages of many sizes and expects each back before the next.
struct client : std::enable_shared_from_this<client> {
    static constexpr int rounds = 60;
    tcp::socket socket;
    int number, round = 0;
    bytes sent, got;
    std::function<void()> done;
    client(asio::io_context &c, int n, std::function<void()> d) : socket(c), number(n), done(std::move(d)) {}
    void start(tcp::endpoint to) {
        socket.async_connect(to, [self = shared_from_this()](std::error_code e) {
            if (e) throw std::system_error(e);
            self->socket.set_option(tcp::no_delay(true));
            self->next();
        });
    }
    void next() {
        if (round == rounds) {
            socket.shutdown(tcp::socket::shutdown_send);
            return done();
        }
        sent = pattern(number * rounds + round, 1 + (number * 131 + round * 877) % 51000);
        got.assign(sent.size(), 0);
        round++;
        auto self = shared_from_this();
        asio::async_write(socket, asio::buffer(sent), [self](std::error_code e, std::size_t) {
            if (e) throw std::system_error(e);
        });
        asio::async_read(socket, asio::buffer(got), [self](std::error_code e, std::size_t n) {
            if (e) throw std::system_error(e);
            echoed += n;
            wrong += self->got != self->sent;
            self->next();
        });
    }
};

struct server {
    tcp::acceptor acceptor;
    explicit server(asio::io_context &c) : acceptor(c, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) { accept(); }
    void accept() {
        acceptor.async_accept([this](std::error_code e, tcp::socket s) {
            if (e == asio::error::operation_aborted) {
                fired++;
                return;
            }
            if (e) throw std::system_error(e);
            std::make_shared<session>(std::move(s))->read();
            accept();
        });
    }
};

static void files(asio::io_context &context, const std::string &directory) {
    using file = asio::random_access_file;
    for (int f = 0; f < 8; f++) {
        auto path = directory + "/asio" + std::to_string(f);
        auto out = std::make_shared<file>(context, path, file::read_write | file::create | file::truncate);
        for (int chunk = 0; chunk < 30; chunk++) {
            auto content = std::make_shared<bytes>(pattern(f * 30 + chunk, 10000));
            auto at = static_cast<std::uint64_t>(chunk) * 10000;
            asio::async_write_at(*out, at, asio::buffer(*content), [out, content, at](std::error_code e, std::size_t n) {
                if (e || n != content->size()) throw std::system_error(e);
                auto back = std::make_shared<bytes>(content->size());
                asio::async_read_at(*out, at, asio::buffer(*back), [out, back, content](std::error_code e, std::size_t n) {
                    if (e) throw std::system_error(e);
                    checked += n;
                    wrong += *back != *content;
                });
            });
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    asio::io_context context;
    files(context, argv[1]);
    server serve(context);
    int left = 24;
    asio::steady_timer patience(context), never(context, std::chrono::hours(1));
    never.async_wait([](std::error_code e) { fired += e == asio::error::operation_aborted; });
    for (int i = 0; i < 24; i++) {
        std::make_shared<client>(context, i, [&] {
            if (--left) return;
            patience.expires_after(std::chrono::milliseconds(30));
            patience.async_wait([&](std::error_code) {
                fired++;
                never.cancel();
                serve.acceptor.cancel();
            });
        })->start(serve.acceptor.local_endpoint());
    }
    context.run();
    std::printf("files %lu bytes, echoed %lu bytes, %lu wrong, %lu timers and cancellations\n", checked, echoed, wrong, fired);
    return wrong != 0;
}
