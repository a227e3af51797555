package bpf

// What the words of the language stand for. Numbers are IANA's: protocols,
// EtherTypes, ICMP parameters, service names.

// family is the header that a protocol word speaks of.
type family struct {
	etherType uint32 // it is an EtherType of its own
	ip        uint32 // it is carried in IP under this number
	v4, v6    bool   // by which versions of IP
	ports     bool   // it has ports
	sap       uint32 // it is an 802.2 LLC service access point
	access    bool   // proto[...] works
}

var families = map[string]family{
	"ip":    {etherType: 0x0800, access: true},
	"ip6":   {etherType: 0x86dd, access: true},
	"arp":   {etherType: 0x0806, access: true},
	"rarp":  {etherType: 0x8035, access: true},
	"atalk": {etherType: 0x809b}, "decnet": {etherType: 0x6003}, "sca": {etherType: 0x6007},
	"lat": {etherType: 0x6004}, "moprc": {etherType: 0x6002}, "mopdl": {etherType: 0x6001},
	"stp": {sap: 0x42}, "iso": {sap: 0xfe},
	"tcp":   {ip: 6, v4: true, v6: true, ports: true, access: true},
	"udp":   {ip: 17, v4: true, v6: true, ports: true, access: true},
	"sctp":  {ip: 132, v4: true, v6: true, ports: true, access: true},
	"icmp":  {ip: 1, v4: true, access: true},
	"igmp":  {ip: 2, v4: true, access: true},
	"igrp":  {ip: 9, v4: true, access: true},
	"vrrp":  {ip: 112, v4: true, access: true},
	"carp":  {ip: 112, v4: true, access: true},
	"pim":   {ip: 103, v4: true, v6: true, access: true},
	"ah":    {ip: 51, v4: true, v6: true},
	"esp":   {ip: 50, v4: true, v6: true},
	"icmp6": {ip: 58, v6: true, access: true},
	"ether": {access: true},
}

// aliases are other spellings of keywords.
var aliases = map[string]string{
	"link": "ether", "icmp-v6": "icmp6", "ip-proto": "proto", "len": "len", "length": "len",
}

// unsupported are words of the language that are left out, with the reason.
var unsupported = map[string]string{
	"gateway": "needs host names", "protochain": "needs a loop, which the kernel refuses",
	"inbound": "the file does not say the direction", "outbound": "the file does not say the direction",
	"mpls": "", "pppoed": "", "pppoes": "", "geneve": "", "vxlan": "", "llc": "", "aarp": "", "ipx": "", "netbeui": "",
	"wlan": "not Ethernet", "fddi": "not Ethernet", "tr": "not Ethernet", "ifname": "a capture has one interface",
	"on":  "a capture has one interface",
	"rnr": "", "rulenum": "", "reason": "", "rset": "", "ruleset": "", "srnr": "", "subrulenum": "", "action": "",
	"type": "not Ethernet", "subtype": "not Ethernet", "dir": "not Ethernet", "lane": "not Ethernet", "clnp": "", "esis": "", "isis": "",
	"addr1": "not Ethernet", "addr2": "not Ethernet", "addr3": "not Ethernet", "addr4": "not Ethernet",
}

// constants are the names of offsets and values.
var constants = map[string]uint32{
	"icmptype": 0, "icmpcode": 1,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8,
	"icmp-routeradvert": 9, "icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12,
	"icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16,
	"icmp-maskreq": 17, "icmp-maskreply": 18,
	"icmp6type": 0, "icmp6code": 1,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4,
	"icmp6-echo": 128, "icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130,
	"icmp6-multicastlistenerreportv1": 131, "icmp6-multicastlistenerdone": 132,
	"icmp6-routersolicit": 133, "icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135,
	"icmp6-neighboradvert": 136, "icmp6-redirect": 137, "icmp6-routerrenum": 138,
	"icmp6-nodeinformationquery": 139, "icmp6-nodeinformationresponse": 140, "icmp6-ineighbordiscoverysolicit": 141,
	"icmp6-ineighbordiscoveryadvert": 142, "icmp6-multicastlistenerreportv2": 143,
	"icmp6-homeagentdiscoveryrequest": 144, "icmp6-homeagentdiscoveryreply": 145,
	"icmp6-mobileprefixsolicit": 146, "icmp6-mobileprefixadvert": 147, "icmp6-certpathsolicit": 148,
	"icmp6-certpathadvert": 149, "icmp6-multicastrouteradvert": 151, "icmp6-multicastroutersolicit": 152,
	"icmp6-multicastroutertermination": 153,
	"tcpflags":                         13,
	"tcp-fin":                          1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32, "tcp-ece": 64, "tcp-cwr": 128,
}

// ipProtocols are names for `proto`.
var ipProtocols = map[string]uint32{
	"icmp": 1, "igmp": 2, "ipip": 4, "ipencap": 4, "tcp": 6, "egp": 8, "igp": 9, "igrp": 9, "udp": 17, "dccp": 33, "ipv6": 41, "rsvp": 46,
	"gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "ipv6-icmp": 58, "eigrp": 88, "ospf": 89, "pim": 103, "vrrp": 112,
	"l2tp": 115, "sctp": 132, "udplite": 136,
}

// etherTypes are names for `ether proto`.
var etherTypes = map[string]uint32{
	"ip": 0x0800, "arp": 0x0806, "rarp": 0x8035, "ip6": 0x86dd, "atalk": 0x809b, "loopback": 0x9000,
	"decnet": 0x6003, "sca": 0x6007, "lat": 0x6004, "moprc": 0x6002, "mopdl": 0x6001, "stp": 0x42, "iso": 0xfe,
}

// service is a port with a name, over TCP, UDP or both.
type service struct {
	port     uint32
	tcp, udp bool
}

var services = map[string]service{
	"ftp-data": {20, true, false}, "ftp": {21, true, false}, "ssh": {22, true, false}, "telnet": {23, true, false},
	"smtp": {25, true, false}, "domain": {53, true, true}, "bootps": {67, false, true}, "bootpc": {68, false, true},
	"tftp": {69, false, true}, "http": {80, true, false}, "kerberos": {88, true, true}, "pop3": {110, true, false},
	"sunrpc": {111, true, true}, "ntp": {123, false, true}, "imap2": {143, true, false}, "snmp": {161, true, true},
	"snmp-trap": {162, true, true}, "bgp": {179, true, false}, "ldap": {389, true, true}, "https": {443, true, true},
	"microsoft-ds": {445, true, true}, "syslog": {514, false, true}, "ldaps": {636, true, true}, "imaps": {993, true, false},
	"pop3s": {995, true, false}, "mysql": {3306, true, false}, "postgresql": {5432, true, false},
}
