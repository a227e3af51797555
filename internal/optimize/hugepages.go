package optimize

import (
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// Hugepages returns the file system of huge pages that new VMs get their
// memory from, "" for none.
func (o *Optimizer) Hugepages() string { return o.read().Hugepages }

// SetHugepages makes VMs to come use huge pages. path is where a hugetlbfs is
// mounted, "" turns it off. VMs that run keep the memory that they have.
func (o *Optimizer) SetHugepages(path string) error {
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	if path != "" {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil {
			return errs.New(errs.NotFound, "hugepages: %s: %w", path, err)
		}
		if st.Type != unix.HUGETLBFS_MAGIC {
			return errs.WithRemedy(errs.New(errs.Invalid, "hugepages: %s is no file system of huge pages", path),
				"mount -t hugetlbfs none "+path)
		}
	}
	s := o.read()
	s.Hugepages = path
	return o.write(s)
}
