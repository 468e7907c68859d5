"""Whether ranks still move: beacons in every rank, one judge over them, evidence of where they stood."""
