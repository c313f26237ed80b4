// In an exported folder this file names the runs, and the page reads scripts; here it asks the server.
