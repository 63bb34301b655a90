package usage

import "os"

// breakDisk makes the next writes fail, as a full disk does, until the file that
// is in the way of the next segment is removed. The caller records something
// between blocked and release, so that the writer meets it.
func (j *Journal) breakDisk(blocked chan<- struct{}, release <-chan struct{}) {
	j.mu.Lock() // the writer takes its batch under it
	if j.file != nil {
		j.file.Close()
		j.file, _ = os.Open(os.DevNull)
	}
	if f, err := os.Create(segmentPath(j.dir, j.number+1)); err == nil {
		f.Close()
	}
	j.mu.Unlock()
	close(blocked)
	<-release
}
