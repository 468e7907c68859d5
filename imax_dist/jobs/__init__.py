"""Many posters: manifest -> store -> pool of gangs -> posters. The only place that knows Ray."""
