"""What both HTTP ports serve, from one implementation: keys, views, queries, refreshes."""
