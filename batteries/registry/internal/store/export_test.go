package store

// Path returns where the repository is on the disk.
func (r *Repo) Path(s *Store) string { return s.disk.full(repoDir(r.Name())) }
