package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"

	"minimega/internal/errs"
	"minimega/internal/guest"
)

// node is a container of the demo: its interfaces, as many as VLANs, and what
// its init is told.
type node struct {
	name  string
	vlans []string
	words string
	pages int // that it visits
}

// servers is the VLAN of the web servers, offices are those of their clients.
const (
	servers      = "servers"
	serverCount  = 4
	clientCount  = 5 // of each office
	routerName   = "router"
	firstAddress = 11 // of servers and clients; the router is 1
)

var offices = []string{"sales", "lab", "home"}

// network is the routed network: a router with a foot in every VLAN, servers,
// and clients that visit all of them.
func network() []node {
	vlans := append([]string{servers}, offices...)
	router := node{name: routerName, vlans: vlans, words: "forward=1"}
	for i := range vlans {
		router.words += fmt.Sprintf(" ip=eth%d:10.%d.0.1/24", i, i+1)
	}
	list := []node{router}
	var pages []string
	for i := range serverCount {
		address := fmt.Sprintf("10.1.0.%d", firstAddress+i)
		pages = append(pages, address)
		list = append(list, node{name: fmt.Sprintf("web%d", i+1), vlans: vlans[:1], words: "ip=" + address + "/24 gw=10.1.0.1"})
	}
	for v, vlan := range offices {
		for i := range clientCount {
			list = append(list, node{name: fmt.Sprintf("%s%d", vlan, i+1), vlans: []string{vlan}, pages: len(pages),
				words: fmt.Sprintf("ip=10.%d.0.%d/24 gw=10.%d.0.1 visit=%s", v+2, firstAddress+i, v+2, strings.Join(pages, ","))})
		}
	}
	return list
}

// showNetwork is the tour of the network of containers.
func (d *demo) showNetwork(ctx context.Context) error {
	nodes := network()
	d.say(fmt.Sprintf("Describing a network of %d containers on %d VLANs and launching them.", len(nodes), len(offices)+1))
	if err := d.launchNodes(ctx, nodes); err != nil {
		return err
	}
	wire, pages := filepath.Join(d.options.out, "wire.pcap"), filepath.Join(d.options.out, "http.pcapng")
	d.say("Recording what is on the wires of the bridge, and what the router passes on of HTTP.")
	if err := d.all(ctx, "capture pcap bridge mega_bridge "+wire, "capture pcap filter 'tcp port 80'",
		"capture pcap vm "+routerName+" 0 "+pages, "vm start all"); err != nil {
		return err
	}
	d.say("Waiting until every client has fetched a page from every server, through the router.")
	if err := d.visited(ctx, nodes); err != nil {
		return err
	}
	if err := d.print(ctx, ".annotate false .columns id,name,state,vlan,ip,memory vm info"); err != nil {
		return err
	}
	d.say("Typing at the console of " + nodes[len(nodes)-1].name + ": it pings a server, behind the router.")
	if err := d.typeAt(ctx, nodes, len(nodes)-1, "ping -c 2 10.1.0.11", "2 sent, 2 received"); err != nil {
		return err
	}
	if err := d.traffic(ctx); err != nil {
		return err
	}
	if err := d.print(ctx, ".annotate false .columns bridge,interface,path,packets,drops capture"); err != nil {
		return err
	}
	if err := d.all(ctx, "capture pcap delete vm "+routerName, "capture pcap delete bridge mega_bridge"); err != nil {
		return err
	}
	return d.left([]file{{wire, "all packets of the bridge: tcpdump -r, wireshark"}, {pages, "those of HTTP that the router passed on"}})
}

// launchNodes launches all; the first of each kind is shown.
func (d *demo) launchNodes(ctx context.Context, nodes []node) error {
	if err := d.all(ctx, "vm config filesystem "+d.rootfs(), "vm config memory 64"); err != nil {
		return err
	}
	hidden := 0
	for _, n := range nodes {
		do := d.do
		if n.name != routerName && !strings.HasSuffix(n.name, "1") {
			do, hidden = d.silent, hidden+1
		}
		for _, line := range []string{
			"vm config networks " + strings.Join(n.vlans, " "),
			"vm config init /init " + n.words,
			"vm launch container " + n.name,
		} {
			if err := do(ctx, line); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(d.out, "    … and %d more like these.\n", hidden)
	return nil
}

// visited waits for the consoles of all clients to name all pages.
func (d *demo) visited(ctx context.Context, nodes []node) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var wg sync.WaitGroup
	failed := make(chan error, len(nodes))
	clients := 0
	for i, n := range nodes {
		if n.pages == 0 {
			continue
		}
		clients++
		wg.Go(func() { failed <- d.console(ctx, i, "", "visit: ", n.pages, nil) })
	}
	wg.Wait()
	for range clients {
		if err := <-failed; err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "    %d clients have fetched %d pages each\n", clients, serverCount)
	d.took("the network is up and answers")
	return nil
}

// typeAt types a line at the console of a node and shows what comes of it.
func (d *demo) typeAt(ctx context.Context, nodes []node, i int, line, want string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var shown strings.Builder
	if err := d.console(ctx, i, line+"\n", want, 1, &shown); err != nil {
		return err
	}
	text := strings.ReplaceAll(shown.String(), "\r", "")
	if at := strings.LastIndex(text, line); at >= 0 {
		text = text[at:]
	}
	fmt.Fprintln(d.out, indent(nodes[i].name+"# "+text))
	return nil
}

// console types at the console of the VM with this id and reads until a text
// has come so many times. The socket tells a newcomer what was shown before.
func (d *demo) console(ctx context.Context, id int, line, want string, times int, shown *strings.Builder) error {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", filepath.Join(d.base, "base", fmt.Sprint(id), "console"))
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, err := io.WriteString(c, line); err != nil {
		return err
	}
	if shown == nil {
		shown = &strings.Builder{}
	}
	buf := make([]byte, 4096)
	for strings.Count(shown.String(), want) < times {
		n, err := c.Read(buf)
		shown.Write(buf[:n])
		if err != nil {
			return errs.New(errs.Unreachable, "%q did not come on the console of VM %d within %s, only %q", want, id, patience, shown.String())
		}
	}
	return nil
}

func (d *demo) rootfs() string { return filepath.Join(d.base, "guest.root") }

// makeRootfs makes the containers' file system.
func (d *demo) makeRootfs() error {
	if err := guest.Rootfs(d.rootfs()); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "    %s: /init is minimega itself: a shell, ping, a web server and a client\n", d.rootfs())
	return nil
}
