//! The streams of all sites: whose each is, its name, and what is kept of its past.

use std::{collections::HashMap, sync::Arc};

use hashbrown::DefaultHashBuilder;

use crate::{
    learn::Past,
    site::{CONTACT, Site},
    sites::SiteNumber,
    stream::StreamId,
};

#[derive(Debug, Clone, Copy)]
struct Owner {
    site: SiteNumber,
    name: u16,
}

/// See above. Contact is the first name.
#[derive(Debug)]
pub(crate) struct Streams {
    owners: Vec<Owner>,
    names: Vec<Arc<str>>,
    name_numbers: HashMap<Arc<str>, u16, DefaultHashBuilder>,
    pasts: Vec<Option<Box<Past>>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            owners: Vec::new(),
            names: vec![CONTACT.into()],
            name_numbers: HashMap::from_iter([(CONTACT.into(), 0)]),
            pasts: Vec::new(),
        }
    }
}

impl Streams {
    /// Takes in the stream that the clock made last.
    pub(crate) fn add(&mut self, site: SiteNumber, name: &str, past: Option<Past>) {
        let name = match self.name_numbers.get(name) {
            Some(known) => *known,
            None => {
                let (number, name) = (self.names.len() as u16, Arc::from(name));
                self.names.push(Arc::clone(&name));
                self.name_numbers.insert(name, number);
                number
            }
        };
        self.owners.push(Owner { site, name });
        self.pasts.push(past.map(Box::new));
    }

    /// All streams there are.
    pub(crate) fn all(&self) -> impl Iterator<Item = StreamId> + use<> {
        (0..self.owners.len() as u32).map(StreamId)
    }

    /// Whose a stream is.
    pub(crate) fn site(&self, stream: StreamId) -> SiteNumber {
        self.owners[stream.0 as usize].site
    }

    /// Its name: `contact`, or a table.
    pub(crate) fn name(&self, stream: StreamId) -> &str {
        &self.names[self.owners[stream.0 as usize].name as usize]
    }

    pub(crate) fn is_contact(&self, stream: StreamId) -> bool {
        self.owners[stream.0 as usize].name == 0
    }

    /// The stream of a site of this name.
    pub(crate) fn named(&self, site: &Site, name: &str) -> Option<StreamId> {
        let name = *self.name_numbers.get(name)?;
        site.streams.iter().copied().find(|stream| self.owners[stream.0 as usize].name == name)
    }

    /// The contact of a site, if it ever came.
    pub(crate) fn contact(&self, site: &Site) -> Option<StreamId> {
        site.streams.first().copied().filter(|first| self.is_contact(*first))
    }

    /// What is kept of a stream's past, if anything is learned.
    pub(crate) fn past(&self, stream: StreamId) -> Option<&Past> {
        self.pasts[stream.0 as usize].as_deref()
    }

    pub(crate) fn past_mut(&mut self, stream: StreamId) -> Option<&mut Past> {
        self.pasts[stream.0 as usize].as_deref_mut()
    }
}
