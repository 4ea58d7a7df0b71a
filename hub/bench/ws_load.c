/* The websocket load client of ws_load.py in C, for rates at which Python would be the bottleneck. Compiled
 * at run time where there is a compiler; speaks the same commands. One thread, epoll.
 *
 * First lines of standard input: "port kind pace sessions", the first bytes of an event, the stamp; then for each
 * session its path and its hello (may be empty). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HUB, PLAIN, SOCKETIO };
struct session { int fd, upgraded, welcomed; char *path, *hello; unsigned char *rest; size_t size; };

static struct session *sessions;
static int port, kind, count, opened, ready, poller, timing;
static double pace;
static char *event_head, *stamp;
static size_t event_size, stamp_size, delay_count, delay_room;
static uint64_t frames, bytes, lost, *delays;
static unsigned char space[4 << 20];

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what, const void *detail, size_t size) {
  fprintf(stderr, "ws_load: %s %.*s\n", what, (int)size, (const char *)detail);
  exit(1);
}

static char *line(void) {
  char *text = NULL;
  size_t room = 0;
  ssize_t got = getline(&text, &room, stdin);
  if (got < 1) exit(0);
  text[got - 1] = 0;
  return text;
}

/* A masked frame whose key is zero: legal, and the text stays as it is. */
static void send_frame(struct session *s, int opcode, const void *text, size_t size) {
  unsigned char head[8] = {128 | opcode}, out[8192];
  size_t n = 2;
  if (size > sizeof out - 8) die("hello too long", "", 0);
  if (size < 126) head[1] = 128 | size;
  else head[1] = 128 | 126, head[2] = size >> 8, head[3] = size & 255, n = 4;
  memcpy(out, head, n), memset(out + n, 0, 4), memcpy(out + n + 4, text, size);
  if (write(s->fd, out, n + 4 + size) < 0 && errno != EAGAIN) die("cannot write", strerror(errno), 40);
}

static void open_session(struct session *s) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct epoll_event watch = {.events = EPOLLIN, .data.ptr = s};
  char request[2048];
  int on = 1;
  s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s->fd < 0 || connect(s->fd, (void *)&to, sizeof to)) die("cannot connect", strerror(errno), 40);
  setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  int n = snprintf(request, sizeof request,
                   "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n", s->path, port);
  if (write(s->fd, request, n) != n) die("cannot write", strerror(errno), 40);
  fcntl(s->fd, F_SETFL, O_NONBLOCK);
  epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &watch);
}

static void note_delay(const unsigned char *text, size_t size) {
  const char *at = memmem(text, size, stamp, stamp_size);
  if (!at) return;
  uint64_t now = now_ns(), sent = strtoull(at + stamp_size, NULL, 10);
  if (delay_count == delay_room) delays = realloc(delays, (delay_room = delay_room * 2 + 4096) * sizeof *delays);
  delays[delay_count++] = now - sent;
}

static void other(struct session *s, int opcode, const unsigned char *text, size_t size) {
  char join[512];
  if (opcode == 8) die("a session was closed:", text + 2, size > 2 ? size - 2 : 0);
  if (opcode == 9) { send_frame(s, 10, text, size); return; }
  if (kind == SOCKETIO && !(size > 11 && !memcmp(text, "42[\"welcome\"", 12))) {
    if (size == 1 && *text == '2') send_frame(s, 1, "3", 1);
    else if (*text == '0') send_frame(s, 1, "40", 2);
    else if (size > 1 && !memcmp(text, "40", 2))
      send_frame(s, 1, join, snprintf(join, sizeof join, "42[\"join\",\"%s\"]", s->hello));
  } else if (!s->welcomed) {
    s->welcomed = 1;
    if (++ready == count) printf("{\"ready\": %d}\n", ready), fflush(stdout);
  }
}

static void consume(struct session *s) {
  if (s->size) memcpy(space, s->rest, s->size);
  ssize_t got = read(s->fd, space + s->size, sizeof space - s->size - 1);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) { lost++, close(s->fd); return; }
  size_t at = 0, end = s->size + got;
  bytes += got;
  space[end] = 0;
  if (!s->upgraded) {
    unsigned char *body = memmem(space, end, "\r\n\r\n", 4);
    if (body && !memmem(space, 20, " 101 ", 5)) die("no upgrade:", space, end < 300 ? end : 300);
    if (body) {
      s->upgraded = 1, at = body + 4 - space;
      if (kind == HUB) send_frame(s, 1, s->hello, strlen(s->hello));
    }
  }
  while (s->upgraded && end - at >= 2) {
    size_t size = space[at + 1] & 127, head = 2;
    if (size == 126) head = 4;
    else if (size == 127) head = 10;
    if (end - at < head) break;
    if (head > 2) for (size = 0, head = 2; head < (size_t)((space[at + 1] & 127) == 126 ? 4 : 10); head++) size = size << 8 | space[at + head];
    if (end - at < head + size) break;
    const unsigned char *text = space + at + head;
    if (size >= event_size && !memcmp(text, event_head, event_size)) {
      frames++;
      if (timing) note_delay(text, size);
    } else other(s, space[at] & 15, text, size);
    at += head + size;
  }
  s->size = end - at;
  if (s->size) s->rest = realloc(s->rest, s->size), memcpy(s->rest, space + at, s->size);
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static double at_share(double share) {
  size_t n = delay_count * share;
  return delay_count ? delays[n < delay_count ? n : delay_count - 1] / 1e6 : 0;
}

static void answer(const char *command) {
  struct rusage used;
  if (!strcmp(command, "delays")) {
    qsort(delays, delay_count, sizeof *delays, ascending);
    printf("{\"p50_ms\": %f, \"p99_ms\": %f, \"n\": %zu}\n", at_share(0.5), at_share(0.99), delay_count);
    timing = 0;
  } else {
    if (!strcmp(command, "clock")) timing = 1, delay_count = 0;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"frames\": %lu, \"bytes\": %lu, \"lost\": %lu, \"cpu_s\": %f}\n", frames, bytes, lost,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
  }
  fflush(stdout);
}

int main(void) {
  setvbuf(stdin, NULL, _IONBF, 0); /* epoll must see every line that is left */
  char name[16], *first = line();
  if (sscanf(first, "%d %15s %lf %d", &port, name, &pace, &count) != 4) die("bad job", first, strlen(first));
  kind = !strcmp(name, "hub") ? HUB : !strcmp(name, "socketio") ? SOCKETIO : PLAIN;
  event_head = line(), event_size = strlen(event_head), stamp = line(), stamp_size = strlen(stamp);
  sessions = calloc(count, sizeof *sessions);
  for (int n = 0; n < count; n++) sessions[n].path = line(), sessions[n].hello = line();
  struct epoll_event commands = {.events = EPOLLIN, .data.ptr = NULL}, due[256];
  poller = epoll_create1(EPOLL_CLOEXEC);
  epoll_ctl(poller, EPOLL_CTL_ADD, 0, &commands);
  for (uint64_t began = now_ns();;) {
    while (opened < count && (now_ns() - began) / 1e9 >= opened / pace) open_session(&sessions[opened++]);
    int n = epoll_wait(poller, due, 256, opened < count ? 1 : -1);
    for (int i = 0; i < n; i++)
      if (due[i].data.ptr) consume(due[i].data.ptr);
      else answer(line());
  }
}
