package container

import "golang.org/x/sys/unix"

// kept are the capabilities of a container's root (capabilities(7)): the list
// of the interface.
var kept = []int{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID,
	unix.CAP_SETUID, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_CHROOT,
	unix.CAP_MKNOD, unix.CAP_AUDIT_WRITE, unix.CAP_AUDIT_CONTROL, unix.CAP_SETFCAP,
}

// keptMask has a bit for each of them.
func keptMask() (mask uint64) {
	for _, c := range kept {
		mask |= 1 << c
	}
	return mask
}
