package guestos

// OthersRun implements system.System.
func (s *System) OthersRun() bool {
	s.running.mu.Lock()
	ours := s.running.n
	s.running.mu.Unlock()
	return len(s.kernel.RootPIDNamespace().ThreadGroups()) > 1+ours
}
