package keydesk

// Routes returns the method and the path of every route.
func Routes() []string {
	var all []string
	for _, x := range routes() {
		all = append(all, x.method+" "+x.path)
	}
	return all
}
