/* A wire between two network namespaces, with a rate and a delay.
 *
 *     wire NAMESPACE NAMESPACE DEVICE BITS_PER_SECOND DELAY_SECONDS
 *
 * Makes a network device in each of the two (those of `ip netns add`), and carries packets from one
 * to the other: a packet leaves when the one before it has left, takes its bits over the rate, and
 * arrives a delay later. Says "ready" when the devices are there, and ends when its input does: so
 * it never outlives who started it.
 *
 * A veth pair with tc's netem would do the same, but many kernels are built without netem. As
 * there, the devices' counters tell what was sent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { PACKET_BYTES = 1 << 16, PACKETS = 256 };

typedef struct packet {
    double due; /* when it arrives */
    size_t bytes;
    unsigned char data[PACKET_BYTES];
} packet;

/* One way. What does not fit waits in the sender's device. */
typedef struct way {
    int from, to;
    double free_at; /* when the last packet has left */
    int first, count;
    packet ring[PACKETS];
} way;

static way ways[2];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void require(bool good, const char *what)
{
    if (good) return;
    fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int make_device(const char *space, const char *name)
{
    char path[256];
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    snprintf(path, sizeof path, "/run/netns/%s", space);
    int handle = open(path, O_RDONLY | O_CLOEXEC);
    require(handle >= 0 && setns(handle, CLONE_NEWNET) == 0, path);
    close(handle);
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    require(device >= 0, "/dev/net/tun");
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    require(ioctl(device, TUNSETIFF, &request) == 0, name);
    return device;
}

/* Takes what the sender has for this way. */
static void take(way *w, double rate, double delay)
{
    while (w->count < PACKETS) {
        packet *p = &w->ring[(w->first + w->count) % PACKETS];
        ssize_t bytes = read(w->from, p->data, sizeof p->data);
        if (bytes <= 0) return;
        double begin = now();
        if (w->free_at > begin) begin = w->free_at;
        w->free_at = begin + 8.0 * (double)bytes / rate;
        p->bytes = (size_t)bytes;
        p->due = w->free_at + delay;
        w->count++;
    }
}

/* Hands over what has arrived; a packet that the receiver does not take is lost, as on a wire. */
static void give(way *w)
{
    while (w->count > 0 && w->ring[w->first].due <= now()) {
        const packet *p = &w->ring[w->first];
        if (write(w->to, p->data, p->bytes) < 0 && errno != EAGAIN && errno != EIO)
            require(false, "write");
        w->first = (w->first + 1) % PACKETS;
        w->count--;
    }
}

static double earliest(double until)
{
    for (int i = 0; i < 2; i++)
        if (ways[i].count > 0 && ways[i].ring[ways[i].first].due < until)
            until = ways[i].ring[ways[i].first].due;
    return until;
}

/* Waits for a packet, for one to be due, or for the end of the input. Returns whether to go on. */
static bool wait_for_work(void)
{
    struct pollfd on[3] = {{.fd = STDIN_FILENO, .events = POLLIN}};
    for (int i = 0; i < 2; i++)
        on[1 + i] =
            (struct pollfd){.fd = ways[i].count < PACKETS ? ways[i].from : -1, .events = POLLIN};
    double left = earliest(now() + 1.0) - now();
    if (left < 0.0) left = 0.0;
    struct timespec wait = {(time_t)left, (long)(1e9 * (left - (double)(time_t)left))};
    require(ppoll(on, 3, &wait, NULL) >= 0 || errno == EINTR, "ppoll");
    return on[0].revents == 0;
}

int main(int argc, char **argv)
{
    const struct sched_param first = {.sched_priority = 1};
    if (argc != 6 || !(atof(argv[4]) > 0.0) || !(atof(argv[5]) >= 0.0)) {
        fprintf(stderr, "usage: wire NAMESPACE NAMESPACE DEVICE BITS_PER_SECOND DELAY_SECONDS\n");
        return 64;
    }
    ways[0].from = ways[1].to = make_device(argv[1], argv[3]);
    ways[1].from = ways[0].to = make_device(argv[2], argv[3]);
    /* A network card does not wait for those who compute. */
    sched_setscheduler(0, SCHED_FIFO, &first);
    puts("ready");
    fflush(stdout);
    while (wait_for_work())
        for (int i = 0; i < 2; i++) {
            take(&ways[i], atof(argv[4]), atof(argv[5]));
            give(&ways[i]);
        }
    return 0;
}
